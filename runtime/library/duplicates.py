"""Pictures and films that the library holds more than once, and shots that are nearly alike.

    same    one picture in several files: copied, resized, compressed anew, edges cut off; one film likewise
    near    different pictures that look nearly the same: a burst, a picture and its retouched version

Bytes decide first (content hashes). Then fingerprints propose pairs that look alike as a whole, and vectors
pairs of which one may be a part of the other; the previews decide (`likeness`). Every member of a group was
compared with its best picture, so that a chain of small steps never joins what differs.

Knows the store and the previews; opens no file.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..errors import LibraryError, StoppedError
from .connection import fetch
from .contents import Content, held_contents, quality
from .cropping import best_windows
from .fingerprint import VERSION, Print, fingerprint, hashes, read_prints
from .grouping import Edges, grouped
from .likely_pairs import alike_hashes, alike_vectors, with_cosines
from .likeness import SAME, Window
from .preview_differences import PreviewDifferences
from .previews import Previews
from .print_differences import cells_apart, films_apart
from .spaces import active_space

if TYPE_CHECKING:
    from .store import Store

# Bits of 64 by which the hashes of one picture in two files differ at most (measured: 4).
_SAME_BITS = 8
# Grey levels by which the worst 4 x 4 cells of two fingerprints differ at most (measured: 7).
_SAME_CELLS = 16.0
# The components of vectors that are compared, and their cosine from which on pictures are near.
_DIMS = 128
_NEAR_COSINE = 0.90
# How like a stretch of one picture's columns and rows must be to the other's (measured: 0.76 and more; of
# unrelated pictures 0.37).
_PART_SCORE = 0.65
_KEPT_AT_ONCE = 500
# By how much the durations of one film in two files differ at most, in seconds and as a part.
_DURATION_S, _DURATION_PART = 0.5, 0.02

Kind = Literal["same", "near"]


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Items that belong together, the best first: most pixels, then most bytes, then the oldest.

    Of files with the same bytes the shortest name comes first: "house.jpg", then "house (1).jpg".

    `distance`, in [0, 1]: of the member that is least like the best. Among the same pictures it is a
    difference of grey levels (0: the same bytes), among near ones of the directions of vectors.
    """

    kind: Kind
    ids: tuple[int, ...]
    distance: float


@dataclass(frozen=True, slots=True)
class DuplicateProgress:
    """How far the search is: looking at previews, then comparing them."""

    stage: Literal["look", "compare"]
    done: int
    total: int


Progress = Callable[[DuplicateProgress], None]


class DuplicateFinder:
    """Finds duplicates and remembers what it has compared. One search at a time; others wait."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._differences: dict[tuple[bytes, bytes], float] = {}
        self._found: tuple[tuple[Any, ...], tuple[DuplicateGroup, ...]] | None = None

    def find(
        self,
        store: Store,
        previews: Previews,
        *,
        cache: Previews | None = None,
        progress: Progress | None = None,
        stop: threading.Event | None = None,
    ) -> tuple[DuplicateGroup, ...]:
        """All groups: those of the same picture first, those with most items first among each.

        `cache`: where fingerprints are kept. `stop`, once set, ends it early.

        Raises:
            StoppedError: `stop` was set.
        """
        with self._lock:
            contents = held_contents(store)
            state = tuple(content.ids for content in contents), tuple(content.hash for content in contents)
            if self._found is None or self._found[0] != state:
                run = _Run(contents, store, previews, cache, self._differences, progress, stop)
                self._found = state, run.groups()
            return self._found[1]


class _Run:
    """One search. Positions are those of `contents`; an edge joins two of them at a distance."""

    def __init__(
        self,
        contents: Sequence[Content],
        store: Store,
        previews: Previews,
        cache: Previews | None,
        differences: dict[tuple[bytes, bytes], float],
        progress: Progress | None,
        stop: threading.Event | None,
    ) -> None:
        self._contents = contents
        self._store = store
        self._previews = previews
        self._cache = cache
        self._differences = PreviewDifferences(previews, differences, self._check)
        self._progress = progress
        self._stop = stop

    def groups(self) -> tuple[DuplicateGroup, ...]:
        prints = self._prints()
        photos = np.array(
            [i for i, c in enumerate(self._contents) if c.kind == "photo" and prints[i]], np.int64
        )
        films = [i for i, c in enumerate(self._contents) if c.kind == "video" and prints[i]]
        lumas = (
            np.stack([prints[i][0].luma for i in photos]) if len(photos) else np.empty((0, 32, 32), np.uint8)
        )
        alike = alike_hashes(hashes(lumas), self._check)
        vectors = self._vectors(photos)
        best_first = sorted(range(len(self._contents)), key=lambda i: quality(self._contents[i]))
        same = self._same_wholes(photos, lumas, alike)
        # A part is looked for in the best of each group only, and is itself in none or the best of one.
        heads, _ = grouped(best_first, same)
        same |= self._same_parts(photos, lumas, vectors, heads)
        same |= self._same_films(films, prints)
        near = {
            (int(photos[a]), int(photos[b])): 1 - cosine
            for a, b, cosine in with_cosines(alike, vectors)
            if cosine >= _NEAR_COSINE
        }
        heads, joined = grouped(best_first, same)
        found = [self._group("same", members, distance) for members, distance in joined]
        alone = heads - {members[0] for members, _ in joined}
        copied = (self._contents[at].ids for at in alone)
        found += [DuplicateGroup("same", ids, 0.0) for ids in copied if len(ids) > 1]
        near = {pair: distance for pair, distance in near.items() if pair[0] in heads and pair[1] in heads}
        _, close = grouped([i for i in best_first if i in heads], near)
        found += [self._group("near", members, distance) for members, distance in close]
        return tuple(sorted(found, key=lambda group: (group.kind != "same", -len(group.ids), group.ids)))

    def _group(self, kind: Kind, members: Sequence[int], distance: float) -> DuplicateGroup:
        ids = [media_id for at in members for media_id in self._contents[at].ids]
        if kind == "near":  # a copy of a near picture is in a group of its own
            ids = [self._contents[at].ids[0] for at in members]
        return DuplicateGroup(kind, tuple(ids), round(min(max(distance, 0.0), 1.0), 4))

    def _prints(self) -> list[list[Print]]:
        known = self._previews.fingerprints(VERSION)
        made: dict[bytes, bytes] = {}
        prints = []
        for number, content in enumerate(self._contents):
            stored = known.get(content.hash)
            if stored is None:
                self._check()
                stored = fingerprint(content.kind, content.hash, content.duration_s, self._previews)
                if stored:
                    made[content.hash] = stored
                if len(made) >= _KEPT_AT_ONCE:
                    self._keep(made)
                    made = {}
                if number % 50 == 0:
                    self._tell("look", number, len(self._contents))
            prints.append(read_prints(stored))
        self._keep(made)
        return prints

    def _keep(self, made: dict[bytes, bytes]) -> None:
        if self._cache is None or not made:
            return
        try:
            self._cache.keep_fingerprints(VERSION, made)
        except LibraryError:
            self._cache = None  # it is made again the next time

    def _vectors(self, photos: NDArray[np.int64]) -> NDArray[np.float32]:
        """The leading components of each photo's vector, unit float32 [photos, 128]; zeros: it has none."""
        with self._store.reading() as connection:
            space = active_space(connection)
            rows = fetch(
                connection,
                "SELECT s.media_id, substr(v.embedding, 1, ?) FROM segment s "
                "CROSS JOIN vector v ON v.segment_id = s.id WHERE s.space_id = ?",
                (_DIMS, 0 if space is None else space.id),
            )
        stored = dict(rows)
        width = len(rows[0][1]) if rows else _DIMS
        nothing = bytes(width)
        raw = b"".join(stored.get(self._contents[i].ids[0], nothing) for i in photos)
        vectors = np.frombuffer(raw, np.int8).reshape(len(photos), width).astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: NDArray[np.float32] = vectors / np.maximum(lengths, 1.0)
        return unit

    def _same_wholes(
        self, photos: NDArray[np.int64], lumas: NDArray[np.uint8], alike: list[tuple[int, int, int]]
    ) -> Edges:
        close = [(a, b) for a, b, bits in alike if bits <= _SAME_BITS]
        edges: Edges = {}
        kept = cells_apart(lumas, close) <= _SAME_CELLS
        pairs = [pair for pair, is_kept in zip(close, kept) if is_kept]
        for number, (a, b) in enumerate(pairs):
            first, second = int(photos[a]), int(photos[b])
            apart = self._differences.between(self._contents[first], self._contents[second])
            if apart <= SAME:
                edges[first, second] = apart / 255
            if number % 50 == 0:
                self._tell("compare", number, len(pairs))
        return edges

    def _same_parts(
        self,
        photos: NDArray[np.int64],
        lumas: NDArray[np.uint8],
        vectors: NDArray[np.float32],
        heads: set[int],
    ) -> Edges:
        contents = [self._contents[i] for i in photos]
        dates: dict[str | None, int] = {None: -1}
        taken = np.array([dates.setdefault(c.taken_at, len(dates)) for c in contents], np.int64)
        among = np.array([int(i) in heads for i in photos], bool)
        near = alike_vectors(vectors, taken, among, self._check)
        pairs = [pair for a, b in near for pair in ((a, b), (b, a))]
        if not pairs:
            return {}
        wholes, parts = np.array(pairs).T
        shapes = np.array([np.log(max(c.width, 1) / max(c.height, 1)) for c in contents])
        windows, scores = best_windows(lumas[wholes], lumas[parts], shapes[parts] - shapes[wholes])
        edges: Edges = {}
        promising = np.flatnonzero(scores >= _PART_SCORE)
        for number, at in enumerate(promising):
            whole, part = int(photos[wholes[at]]), int(photos[parts[at]])
            pair = (min(whole, part), max(whole, part))
            if pair in edges:
                continue
            apart = self._differences.between(
                self._contents[whole], self._contents[part], Window(*windows[at])
            )
            if apart <= SAME:
                edges[pair] = apart / 255
            if number % 20 == 0:
                self._tell("compare", number, len(promising))
        return edges

    def _same_films(self, films: list[int], prints: list[list[Print]]) -> Edges:
        films = sorted(films, key=lambda i: self._contents[i].duration_s)
        lasting = np.array([self._contents[i].duration_s for i in films])
        middles = (
            hashes(np.stack([prints[i][len(prints[i]) // 2].luma for i in films]))
            if films
            else np.empty(0, np.uint64)
        )
        edges: Edges = {}
        for at, first in enumerate(films):
            self._check()
            reach = lasting[at] + max(_DURATION_S, _DURATION_PART * lasting[at])
            end = int(np.searchsorted(lasting, reach, side="right"))
            bits = np.bitwise_count(middles[at + 1 : end] ^ middles[at])
            for offset in np.flatnonzero(bits <= 2 * _SAME_BITS):
                second = films[at + 1 + int(offset)]
                apart = films_apart(prints[first], prints[second])
                if apart is not None:
                    edges[min(first, second), max(first, second)] = apart / 255
        return edges

    def _check(self) -> None:
        if self._stop is not None and self._stop.is_set():
            raise StoppedError("The search for duplicates was stopped.")

    def _tell(self, stage: Literal["look", "compare"], done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(DuplicateProgress(stage, done, total))
