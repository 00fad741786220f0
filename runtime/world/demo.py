"""Makes the sample library: photographs and clips of the sample world, as files in a folder.

The folder is new, or one that this module made: a marker file says so, holds the truth about every file,
and lets an interrupted run be finished. Nothing that is there is overwritten, nothing outside the folder is
written.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, LibraryStorageError
from .album import CLIP_FPS, DemoQuery, Shot, demo_queries, plan_album
from .media_files import write_clip, write_photo
from .relevance import match
from .render import Renderer
from .scenes import Scene
from .vocabulary import Kind

MARKER = ".qvl-sample-library.json"
_MARKER_PART = f"{MARKER}.part"
_FORMAT = 1
__all__ = [
    "MARKER",
    "DemoQuery",
    "Moment",
    "SampleItem",
    "demo_queries",
    "make_sample_library",
    "read_sample_library",
]


@dataclass(frozen=True, slots=True)
class Moment:
    """A scene of an item, and when it is seen: seconds from the start, both 0 in a photograph."""

    start_s: float
    end_s: float
    scene: Scene


@dataclass(frozen=True, slots=True)
class SampleItem:
    """The truth about one file of a sample library. taken_at: local time, without a zone."""

    path: Path
    kind: Kind
    moments: tuple[Moment, ...]
    taken_at: datetime
    camera: str
    latitude: float
    longitude: float

    def answers(self, constraints: NDArray[np.int16]) -> bool:
        """Whether any moment of it matches a query's constraints, int16 [17]."""
        return bool(match(constraints[None], np.stack([moment.scene for moment in self.moments])).any())


def make_sample_library(
    folder: str | Path,
    *,
    photos: int = 300,
    clips: int = 40,
    seed: int = 1,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[SampleItem]:
    """Renders a sample library into `folder` and returns the truth about each file.

    folder: made when missing. An empty one is used; one that a run with the same options made is completed,
    and costs nothing when nothing is missing. workers: threads, by default one a core up to four. progress:
    called with files done and files in all.

    Raises InputError where the folder holds anything else or the counts make no sense, LibraryStorageError
    where it cannot be written.
    """
    if photos < 0 or clips < 0 or photos + clips == 0:
        raise InputError(
            f"A sample library of {photos} photographs and {clips} clips: ask for one file at least."
        )
    root = Path(folder).expanduser().resolve()
    shots = plan_album(seed=seed, photos=photos, clips=clips)
    _claim(root, _describe(shots, seed))
    missing = [shot for shot in shots if not os.path.lexists(root / shot.path)]
    for parent in sorted({(root / shot.path).parent for shot in missing}):
        _make_folder(root, parent)
    done_before = len(shots) - len(missing)
    for done in _render(root, missing, workers):
        if progress is not None:
            progress(done_before + done, len(shots))
    return read_sample_library(root)


def read_sample_library(folder: str | Path) -> list[SampleItem]:
    """The truth about a folder that `make_sample_library` made. Raises InputError where it did not."""
    root = Path(folder).expanduser().resolve()
    marker = _read_marker(root)
    if marker is None:
        raise InputError(f"{root}: not a sample library. Make one with `qvl-local demo`.")
    return [_item(root, entry) for entry in marker["items"]]


def _claim(root: Path, marker: dict[str, Any]) -> None:
    """Puts the marker into a new or empty folder; accepts one that has the same; refuses all else."""
    try:
        if root.exists() and not root.is_dir():
            raise InputError(f"{root}: is a file. Name a folder for the sample library.")
        found = _read_marker(root)
        if found is None:
            if root.exists() and any(child.name != _MARKER_PART for child in root.iterdir()):
                raise InputError(
                    f"{root}: holds files that are not a sample library. Name a new or an empty folder."
                )
            root.mkdir(parents=True, exist_ok=True)
            part = root / _MARKER_PART
            part.write_text(json.dumps(marker), encoding="utf-8")
            part.replace(root / MARKER)
        elif found != marker:
            raise InputError(
                f"{root}: holds a sample library made with other options or by another version. "
                "Name another folder, or delete this one."
            )
    except OSError as error:
        raise _cannot_write(root, error) from error


def _read_marker(root: Path) -> dict[str, Any] | None:
    path = root / MARKER
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error}). Delete the folder, or name another one."
        ) from error
    if not isinstance(marker, dict) or marker.get("format") != _FORMAT:
        raise InputError(f"{path}: made by another version. Delete the folder, or name another one.")
    return marker


def _make_folder(root: Path, folder: Path) -> None:
    """Makes a folder below `root`, and sees that no link leads it elsewhere."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(folder, error) from error
    if not folder.resolve().is_relative_to(root):
        raise InputError(f"{folder}: leads out of {root}. Remove that link, or name another folder.")


def _cannot_write(path: Path, error: OSError) -> LibraryStorageError:
    reason = error.strerror or str(error)
    return LibraryStorageError(
        f"{path}: cannot be written ({reason}). Free some space or name another folder."
    )


def _render(root: Path, shots: list[Shot], workers: int | None) -> Iterator[int]:
    """Makes the files of `shots`, and yields how many are done, from 0 on."""
    yield 0
    local = threading.local()

    def make(shot: Shot) -> None:
        if not hasattr(local, "renderer"):
            local.renderer = Renderer()
        _make_file(root / shot.path, shot, local.renderer)

    with ThreadPoolExecutor(workers or min(4, os.cpu_count() or 1)) as pool:
        # Clips take longest: they go first, so that no worker is left with one at the end.
        futures = [pool.submit(make, shot) for shot in sorted(shots, key=lambda shot: -shot.kind)]
        try:
            for done, future in enumerate(as_completed(futures), 1):
                future.result()
                yield done
        finally:
            pool.shutdown(cancel_futures=True)


def _make_file(path: Path, shot: Shot, renderer: Renderer) -> None:
    if shot.kind == Kind.PHOTO:
        write_photo(
            path,
            renderer.image(shot.scenes[0], shot.seed, shot.size),
            taken_at=shot.taken_at,
            latitude=shot.spot.latitude,
            longitude=shot.spot.longitude,
            make=shot.camera.make,
            model=shot.camera.model,
            orientation=shot.orientation,
        )
    else:
        write_clip(
            path,
            _frames(shot, renderer),
            size=shot.size,
            fps=CLIP_FPS,
            taken_at=shot.taken_at,
            latitude=shot.spot.latitude,
            longitude=shot.spot.longitude,
            make=shot.camera.make,
            model=shot.camera.model,
        )


def _frames(shot: Shot, renderer: Renderer) -> Iterator[NDArray[np.uint8]]:
    for i, (scene, seconds) in enumerate(zip(shot.scenes, shot.seconds, strict=True)):
        frames = round(seconds * CLIP_FPS)
        yield from renderer.clip(scene, f"{shot.seed}-{i}", shot.size, frames=frames, smooth=True)


def _describe(shots: tuple[Shot, ...], seed: int) -> dict[str, Any]:
    """The marker: what `_item` reads back, as JSON values."""
    items = []
    for shot in shots:
        ends = [round(sum(shot.seconds[: i + 1]), 1) for i in range(len(shot.seconds))]
        starts = [0.0, *ends[:-1]]
        items.append(
            {
                "path": shot.path,
                "kind": "photo" if shot.kind == Kind.PHOTO else "clip",
                "taken_at": shot.taken_at.isoformat(),
                "camera": shot.camera.model,
                "latitude": shot.spot.latitude,
                "longitude": shot.spot.longitude,
                "moments": [
                    {"start_s": start, "end_s": end, "scene": [int(value) for value in scene]}
                    for start, end, scene in zip(starts, ends, shot.scenes, strict=True)
                ],
            }
        )
    return {"format": _FORMAT, "seed": seed, "items": items}


def _item(root: Path, entry: dict[str, Any]) -> SampleItem:
    return SampleItem(
        path=root / entry["path"],
        kind=Kind.PHOTO if entry["kind"] == "photo" else Kind.CLIP,
        moments=tuple(
            Moment(moment["start_s"], moment["end_s"], np.array(moment["scene"], np.int16))
            for moment in entry["moments"]
        ),
        taken_at=datetime.fromisoformat(entry["taken_at"]),
        camera=entry["camera"],
        latitude=entry["latitude"],
        longitude=entry["longitude"],
    )
