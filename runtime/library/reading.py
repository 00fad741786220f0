"""A file on its way into the library: between its decoding and its writing.

Knows what was decoded and embedded of it so far. Knows neither decoders nor models nor the store.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from ..errors import LibraryError
from .decode import Description
from .previews import Preview, Strip
from .records import EncodedSegment, IndexedMedia
from .survey import Todo


@dataclass(slots=True)
class Reading:
    """A file between decoding and writing. `vectors` fill up in any order; `twins` have the same content.

    `is_continued`: the first of its strips were written, and are not among `strips` any more, which hold
    `held_bytes`.
    """

    todo: Todo
    content: bytes
    pieces: list[tuple[int, int]] = field(default_factory=list)
    vectors: dict[int, NDArray[np.float32]] = field(default_factory=dict)
    strips: list[Strip] = field(default_factory=list)
    held_bytes: int = 0
    is_continued: bool = False
    description: Description | None = None
    finished: bool = False
    twins: list[Todo] = field(default_factory=list)

    @property
    def is_embedded(self) -> bool:
        """Whether the file was decoded to its end and every piece has its vector."""
        return self.description is not None and len(self.vectors) == len(self.pieces)

    def media(self) -> IndexedMedia:
        """What the store keeps of it, once it is embedded."""
        if self.description is None:
            raise LibraryError(f"{self.todo.path}: its description is missing; this is a bug of qvl-local.")
        segments = tuple(
            EncodedSegment(t0_ms, t1_ms, self.vectors[index])
            for index, (t0_ms, t1_ms) in enumerate(self.pieces)
        )
        return IndexedMedia(self.todo.file, self.content, self.description.info, segments)

    def preview(self) -> Preview:
        """The small pictures of it."""
        thumbnail = b"" if self.description is None else self.description.thumbnail
        return Preview(self.content, thumbnail, tuple(self.strips), self.is_continued)
