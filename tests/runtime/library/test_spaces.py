"""Vectors of different spaces never meet."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from qvl_local.runtime.errors import InputError
from qvl_local.runtime.library.store import Store


def test_a_space_is_found_again_by_all_of_its_identity(store: Store, make: Any) -> None:
    identity = make.identity()
    space = store.space(identity)
    assert store.space(identity) == space
    assert store.find_space(identity) == space
    others = [
        replace(identity, revision="r2"),
        replace(identity, precision="int8"),
        replace(identity, dims=128),
        replace(identity, pixels="256 tokens"),
        replace(identity, template="v2"),
    ]
    for other in others:
        assert store.find_space(other) is None
        assert store.space(other).id != space.id
    assert len(store.spaces()) == 1 + len(others)
    assert store.space(replace(identity, bundle="another label")) == space


def test_the_first_space_serves_until_another_is_activated(store: Store, home: Path, make: Any) -> None:
    folder = store.add_folder("/pictures")
    old = store.space(make.identity())
    new = store.space(make.identity(precision="int8"))
    assert (old.active, new.active) == (True, False)
    vectors, rotated = make.vectors(4), make.vectors(4)
    store.write([make.photo(folder.id, f"{i}.jpg", vectors[i]) for i in range(4)], old)
    assert {known.state for known in store.known(folder.id, new)} == {"pending"}

    with Store.open(home) as reader:
        store.write([make.photo(folder.id, f"{i}.jpg", rotated[i]) for i in range(2)], new)
        assert [known.state for known in store.known(folder.id, new)] == ["indexed"] * 2 + ["pending"] * 2
        assert [known.state for known in store.known(folder.id, old)] == ["indexed"] * 4
        assert reader.counts().items == 4
        assert reader.counts(new).items == 2
        best = reader.nearest(vectors[0], limit=9)
        assert (best[0].item.name, len(best)) == ("0.jpg", 4)
        assert best[0].cosine == pytest.approx(1, abs=1e-3)

        store.activate(new)
        best = reader.nearest(rotated[1], limit=9)
        assert (best[0].item.name, len(best)) == ("1.jpg", 2)
        assert best[0].cosine == pytest.approx(1, abs=1e-3)
        assert [c.item.name for c in reader.nearest(vectors[3], limit=1, space=old)] == ["3.jpg"]
    assert [space.active for space in store.spaces()] == [False, True]


def test_new_content_makes_the_vectors_of_every_space_stale(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    old, new = store.space(make.identity()), store.space(make.identity(precision="int8"))
    for space in (old, new):
        store.write([make.photo(folder.id, "a.jpg", content="1")], space)
    assert (store.counts(old).segments, store.counts(new).segments) == (1, 1)
    store.write([make.photo(folder.id, "a.jpg", content="2")], new)
    assert (store.counts(old).segments, store.counts(new).segments) == (0, 1)
    assert [known.state for known in store.known(folder.id, old)] == ["pending"]


def test_a_copied_file_is_copied_in_every_space(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    old, new = store.space(make.identity()), store.space(make.identity(dims=128))
    (media_id,) = store.write([make.photo(folder.id, "a.jpg", content="1")], old)
    store.write([make.photo(folder.id, "a.jpg", make.vectors(1, 128)[0], content="1")], new)
    copied = store.copy(media_id, make.file(folder.id, "b.jpg"))
    assert store.vectors(copied, old).shape == (1, 64)
    assert store.vectors(copied, new).shape == (1, 128)


def test_an_old_space_can_be_removed_and_the_active_one_cannot(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    old, new = store.space(make.identity()), store.space(make.identity(dims=128))
    vector = make.vectors(1, 128)[0]
    store.write([make.photo(folder.id, "a.jpg", content="1")], old)
    store.write([make.photo(folder.id, "a.jpg", vector, content="1")], new)
    with pytest.raises(InputError, match="active"):
        store.remove_space(old)
    new = store.activate(new)
    store.remove_space(old)
    assert store.spaces() == (new,)
    assert store._connection.execute("SELECT count(*) FROM vector").fetchall() == [(1,)]
    assert store.nearest(vector, limit=1)[0].cosine == pytest.approx(1, abs=1e-3)


def test_a_query_of_another_width_is_refused(store: Store, make: Any) -> None:
    folder = store.add_folder("/pictures")
    store.write([make.photo(folder.id, "a.jpg")], store.space(make.identity()))
    with pytest.raises(InputError, match="64 dimensions"):
        store.nearest(make.vectors(1, 128)[0], limit=1)


def test_a_space_needs_whole_bytes_of_bits(store: Store, make: Any) -> None:
    for dims in (0, 4, 20):
        with pytest.raises(InputError, match="multiple of 8"):
            store.space(make.identity(dims=dims))
