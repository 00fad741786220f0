"""Held-out galleries of the sample world, drawn once into the cache as ordinary photo and video files.

Relevance is exact: it is computed from what was drawn. Every gallery is a folder in the form that
`folder.py` reads (`queries.jsonl` beside the media), so it also serves as an example of that form.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import LibraryStorageError
from qvl_local.runtime.model.storage import cache_folder
from qvl_local.runtime.world.galleries import FAMILY, Gallery, Question, held_out_galleries
from qvl_local.runtime.world.queries import Style
from qvl_local.runtime.world.vocabulary import Kind

from .dataset import Dataset
from .folder import QUERIES, read_folder

SOURCE = "sample world"

# Raised when scenes are drawn or stored in another way, so that galleries in the cache are drawn again.
_DRAWING = 1
_PHOTO_SIDE = 512
_CLIP_SIDE = 256
_CLIP_FPS = 4
_CLIP_FRAMES = 32

# What people type. Full captions are found almost always and would hide differences.
_STYLES = (Style.PARTIAL, Style.SHORT, Style.TERSE)

Drawn = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class WorldSize:
    """How many documents and questions each gallery has; a gallery without questions is left out.

    "images": random scenes. "siblings": families of four that differ in one attribute. "clips": films.
    """

    images: int = 250
    image_questions: int = 80
    families: int = 40
    family_questions: int = 40
    clips: int = 32
    clip_questions: int = 16

    def limited(self, questions: int) -> WorldSize:
        """At most so many questions a gallery, and fewer documents with them."""
        return WorldSize(
            images=min(self.images, max(16, 3 * questions)),
            image_questions=min(self.image_questions, questions),
            families=min(self.families, max(3, questions)),
            family_questions=min(self.family_questions, questions),
            clips=min(self.clips, max(6, questions)),
            clip_questions=min(self.clip_questions, questions),
        )


FULL = WorldSize()
# For the report that an export makes by itself: half a minute for a small model on a calm machine.
BRIEF = WorldSize(images=60, image_questions=24, families=0, family_questions=0, clips=0, clip_questions=0)


def world_datasets(size: WorldSize = FULL, *, progress: Drawn | None = None) -> tuple[Dataset, ...]:
    """The galleries, drawn now where the cache lacks them. `progress` hears how many of how many are drawn.

    Raises:
        LibraryStorageError: the cache cannot be written.
    """
    galleries = _galleries(size)
    folders = [_folder(gallery, questions) for gallery, questions in galleries]
    absent = [
        (gallery, questions, folder)
        for (gallery, questions), folder in zip(galleries, folders, strict=True)
        if not (folder / QUERIES).is_file()
    ]
    total = sum(len(gallery.scenes) for gallery, _, _ in absent)
    done = 0
    for gallery, questions, folder in absent:
        _draw(gallery, questions, folder, partial(_tell, progress, done, total))
        done += len(gallery.scenes)
    return tuple(
        read_folder(folder, name=gallery.name, source=SOURCE, labels="exact")
        for (gallery, _), folder in zip(galleries, folders, strict=True)
    )


def _galleries(size: WorldSize) -> list[tuple[Gallery, tuple[Question, ...]]]:
    wanted = (size.image_questions, size.clip_questions, size.family_questions)
    drawn = held_out_galleries(
        images=max(size.images, 1),
        clips=max(size.clips, 1),
        families=max(size.families, 1),
        queries=max(wanted),
    )
    return [
        (gallery, _spread(gallery.asked(*_STYLES), questions))
        for gallery, questions in zip(drawn, wanted, strict=True)
        if questions
    ]


def _spread(questions: Sequence[Question], count: int) -> tuple[Question, ...]:
    """`count` of the questions, evenly spread: about scenes from the whole gallery."""
    picked = np.linspace(0, len(questions) - 1, min(count, len(questions))).round().astype(int)
    return tuple(questions[i] for i in picked)


def _folder(gallery: Gallery, questions: Sequence[Question]) -> Path:
    """Where a gallery lies in the cache: named after everything that shapes it."""
    facts = [
        [_DRAWING, _PHOTO_SIDE, _CLIP_SIDE, _CLIP_FPS, _CLIP_FRAMES, FAMILY],
        [gallery.scenes.tolist(), list(gallery.seeds)],
        [[question.text, question.constraints.tolist()] for question in questions],
    ]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    return cache_folder() / "accuracy" / f"{gallery.name}-{len(gallery.scenes)}-{len(questions)}-{digest}"


def _draw(
    gallery: Gallery, questions: Sequence[Question], folder: Path, drawn: Callable[[int], None]
) -> None:
    """Write a gallery beside its place and rename it, so that it is there whole or not at all."""
    part = folder.with_name(f".{folder.name}.{os.getpid()}")
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        names = _write_media(gallery, part, drawn)
        relevance = gallery.relevance(questions)
        lines = [
            {
                "id": f"{gallery.name}-{number}",
                "text": question.text,
                "relevant": {names[i]: 1 for i in np.flatnonzero(relevance[number])},
            }
            for number, question in enumerate(questions)
        ]
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (part / QUERIES).write_text(text, encoding="utf-8")
        _put_in_place(part, folder)
    except OSError as error:
        raise LibraryStorageError(
            f"{folder}: the sample pictures cannot be written ({error.strerror or error}). "
            "Free some space, or choose another cache folder: QVL_CACHE_DIR=/some/folder"
        ) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _put_in_place(part: Path, folder: Path) -> None:
    try:
        part.rename(folder)
    except OSError:
        # Another process drew the same in the meantime; or something damaged lies there.
        if not (folder / QUERIES).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            part.rename(folder)


def _write_media(gallery: Gallery, folder: Path, drawn: Callable[[int], None]) -> list[str]:
    from qvl_local.runtime.world.render import Renderer

    renderer = Renderer()
    names = []
    for number, (scene, seed) in enumerate(zip(gallery.scenes, gallery.seeds, strict=True)):
        if gallery.kind == Kind.PHOTO:
            names.append(f"{number:04}.jpg")
            _save_photo(renderer.image(scene, seed, _PHOTO_SIDE), folder / names[-1])
        else:
            names.append(f"{number:04}.mp4")
            frames = renderer.clip(scene, seed, _CLIP_SIDE, frames=_CLIP_FRAMES, smooth=True)
            _save_clip(frames, folder / names[-1])
        drawn(number + 1)
    return names


def _save_photo(pixels: NDArray[np.uint8], path: Path) -> None:
    from PIL import Image
    from qvl_local.runtime.world.media_files import JPEG_QUALITY

    Image.fromarray(pixels).save(path, "JPEG", quality=JPEG_QUALITY)


def _save_clip(frames: NDArray[np.uint8], path: Path) -> None:
    from datetime import datetime

    from qvl_local.runtime.world.media_files import write_clip

    write_clip(
        path,
        frames,
        size=_CLIP_SIDE,
        fps=_CLIP_FPS,
        taken_at=datetime(2026, 1, 1),
        latitude=0.0,
        longitude=0.0,
        make="qvl-local",
        model="sample world",
    )


def _tell(progress: Drawn | None, before: int, total: int, done: int) -> None:
    if progress is not None:
        progress(before + done, total)
