"""A long film does not wait in memory for its end: the pictures of its scenes are written as they come."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import apsw
import pytest
from qvl_local.runtime import Library
from qvl_local.runtime.library.decode import DecodeLimits
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.previews import PREVIEWS, Preview, Previews
from qvl_local.runtime.library.workers import WorkerSettings

SCENES = (((200, 30, 30), 2.5), ((30, 30, 200), 2.5), ((30, 200, 30), 2.5), ((200, 200, 30), 2.5))


def settings(**given: Any) -> IndexSettings:
    return IndexSettings(workers=WorkerSettings(1), **given)


def strips(library: Path) -> list[tuple[int, bytes]]:
    with closing(apsw.Connection(str(library / PREVIEWS))) as connection:
        return list(connection.execute("SELECT t0_ms, jpeg FROM strip ORDER BY content_hash, t0_ms"))


def test_the_pictures_of_its_scenes_are_written_while_it_is_read(
    tmp_path: Path, media: Any, tiny_bundle: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    media.video(tmp_path / "album" / "a.mp4", SCENES)
    with Library.open(tmp_path / "whole", model=tiny_bundle, settings=settings()) as library:
        library.index([tmp_path / "album"])
    expected = strips(tmp_path / "whole")
    assert len(expected) == 4
    held: list[int] = []
    write = Previews.write

    def written(self: Previews, previews: Sequence[Preview]) -> None:
        held.extend(len(preview.strips) for preview in previews)
        write(self, previews)

    monkeypatch.setattr(Previews, "write", written)
    with Library.open(tmp_path / "parts", model=tiny_bundle, settings=settings(strip_bytes=1)) as library:
        for _ in range(2):
            report = library.index([tmp_path / "album"])
            assert (report.segments, report.failed) == (4, ())
            assert strips(tmp_path / "parts") == expected
            (tmp_path / "album" / "a.mp4").touch()
        hit = library.search("red", limit=1).hits[0]
        assert library.thumbnail(hit.media_id, side=640, t0_ms=5000)
    assert held == [0]


def test_a_film_that_fails_on_the_way_leaves_none(tmp_path: Path, media: Any, tiny_bundle: str) -> None:
    media.video(tmp_path / "album" / "a.mp4", SCENES)
    strict = settings(strip_bytes=1, limits=DecodeLimits(scenes=2))
    with Library.open(tmp_path / "library", model=tiny_bundle, settings=strict) as library:
        (failure,) = library.index([tmp_path / "album"]).failed
        assert "more than 2 scenes" in failure.error
    assert strips(tmp_path / "library") == []
