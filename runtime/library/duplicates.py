"""Pictures and films that the library holds more than once, and shots that are nearly alike.

    same    one picture in several files: copied, resized, compressed anew, edges cut off; one film likewise
    near    different pictures that look nearly the same: a burst, a picture and its retouched version

Bytes decide first (content hashes). Then fingerprints propose pairs that look alike as a whole, and vectors
pairs of which one may be a part of the other; the previews decide (`likeness`). Every member of a group was
compared with its best picture, so that a chain of small steps never joins what differs.

Knows the store and the previews; opens no file.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ..errors import LibraryError, StoppedError
from .connection import fetch
from .cropping import best_windows
from .filters import shown_items
from .fingerprint import VERSION, Print, fingerprint, hashes, read_prints
from .likeness import SAME, Window, difference, difference_of_part
from .previews import Previews
from .rows import loaded_name
from .spaces import active_space
from .thumbnails import DAMAGED, THUMBNAIL_SIDE, open_thumbnail

if TYPE_CHECKING:
    from .store import Store

# Bits of 64 by which the hashes of one picture in two files differ at most (measured: 4), and of near ones.
_SAME_BITS, _NEAR_BITS = 8, 12
# Grey levels by which the worst 4 x 4 cells of two fingerprints differ at most (measured: 7).
_SAME_CELLS = 16.0
# The cosine of the first components of two vectors from which on a part is looked for, and pictures are near.
_DIMS = 128
_PART_COSINE, _NEAR_COSINE = 0.80, 0.90
_PARTS_OF_ONE = 8
# How like a stretch of one picture's columns and rows must be to the other's (measured: 0.76 and more; of
# unrelated pictures 0.37).
_PART_SCORE = 0.65
_NEIGHBOURS = 100
_BLOCK, _VECTOR_BLOCK = 64, 512
_KEPT_PREVIEWS = 512
_KEPT_AT_ONCE = 500

# Films: durations apart, frames apart in time, their cells apart, and how many of the frames must agree.
_DURATION_S, _DURATION_PART = 0.5, 0.02
_FRAME_MS = 350
_FRAME_CELLS = 20.0
_FRAMES_PART = 0.75

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
class _Content:
    """What several files may hold: its items, best first, and what was measured of it."""

    hash: bytes
    kind: str
    ids: tuple[int, ...]
    width: int
    height: int
    size: int
    duration_s: float
    taken_at: str | None


@dataclass(frozen=True, slots=True)
class DuplicateProgress:
    """How far the search is: looking at previews, then comparing them."""

    stage: Literal["look", "compare"]
    done: int
    total: int


Progress = Callable[[DuplicateProgress], None]
_Edges = dict[tuple[int, int], float]


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
            contents = _contents(store)
            state = tuple(content.ids for content in contents), tuple(content.hash for content in contents)
            if self._found is None or self._found[0] != state:
                run = _Run(contents, store, previews, cache, self._differences, progress, stop)
                self._found = state, run.groups()
            return self._found[1]


class _Run:
    """One search. Positions are those of `contents`; an edge joins two of them at a distance."""

    def __init__(
        self,
        contents: Sequence[_Content],
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
        self._differences = differences
        self._progress = progress
        self._stop = stop
        self._opened: OrderedDict[bytes, Image.Image | None] = OrderedDict()

    def groups(self) -> tuple[DuplicateGroup, ...]:
        prints = self._prints()
        photos = np.array(
            [i for i, c in enumerate(self._contents) if c.kind == "photo" and prints[i]], np.int64
        )
        films = [i for i, c in enumerate(self._contents) if c.kind == "video" and prints[i]]
        lumas = (
            np.stack([prints[i][0].luma for i in photos]) if len(photos) else np.empty((0, 32, 32), np.uint8)
        )
        alike = _alike(hashes(lumas), self._check)
        vectors = self._vectors(photos)
        best_first = sorted(range(len(self._contents)), key=lambda i: _quality(self._contents[i]))
        same = self._same_wholes(photos, lumas, alike)
        # A part is looked for in the best of each group only, and is itself in none or the best of one.
        heads, _ = _grouped(best_first, same)
        same |= self._same_parts(photos, lumas, vectors, heads)
        same |= self._same_films(films, prints)
        near = {
            (int(photos[a]), int(photos[b])): 1 - cosine
            for a, b, cosine in _with_cosines(alike, vectors)
            if cosine >= _NEAR_COSINE
        }
        heads, joined = _grouped(best_first, same)
        found = [self._group("same", members, distance) for members, distance in joined]
        alone = heads - {members[0] for members, _ in joined}
        copied = (self._contents[at].ids for at in alone)
        found += [DuplicateGroup("same", ids, 0.0) for ids in copied if len(ids) > 1]
        near = {pair: distance for pair, distance in near.items() if pair[0] in heads and pair[1] in heads}
        _, close = _grouped([i for i in best_first if i in heads], near)
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
    ) -> _Edges:
        close = [(a, b) for a, b, bits in alike if bits <= _SAME_BITS]
        edges: _Edges = {}
        kept = _cells_apart(lumas, close) <= _SAME_CELLS
        pairs = [pair for pair, is_kept in zip(close, kept) if is_kept]
        for number, (a, b) in enumerate(pairs):
            first, second = int(photos[a]), int(photos[b])
            apart = self._difference(first, second, None)
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
    ) -> _Edges:
        contents = [self._contents[i] for i in photos]
        dates: dict[str | None, int] = {None: -1}
        taken = np.array([dates.setdefault(c.taken_at, len(dates)) for c in contents], np.int64)
        among = np.array([int(i) in heads for i in photos], bool)
        near = _similar(vectors, taken, among, self._check)
        pairs = [pair for a, b in near for pair in ((a, b), (b, a))]
        if not pairs:
            return {}
        wholes, parts = np.array(pairs).T
        shapes = np.array([np.log(max(c.width, 1) / max(c.height, 1)) for c in contents])
        windows, scores = best_windows(lumas[wholes], lumas[parts], shapes[parts] - shapes[wholes])
        edges: _Edges = {}
        promising = np.flatnonzero(scores >= _PART_SCORE)
        for number, at in enumerate(promising):
            whole, part = int(photos[wholes[at]]), int(photos[parts[at]])
            pair = (min(whole, part), max(whole, part))
            if pair in edges:
                continue
            apart = self._difference(whole, part, Window(*windows[at]))
            if apart <= SAME:
                edges[pair] = apart / 255
            if number % 20 == 0:
                self._tell("compare", number, len(promising))
        return edges

    def _same_films(self, films: list[int], prints: list[list[Print]]) -> _Edges:
        films = sorted(films, key=lambda i: self._contents[i].duration_s)
        lasting = np.array([self._contents[i].duration_s for i in films])
        middles = (
            hashes(np.stack([prints[i][len(prints[i]) // 2].luma for i in films]))
            if films
            else np.empty(0, np.uint64)
        )
        edges: _Edges = {}
        for at, first in enumerate(films):
            self._check()
            reach = lasting[at] + max(_DURATION_S, _DURATION_PART * lasting[at])
            end = int(np.searchsorted(lasting, reach, side="right"))
            bits = np.bitwise_count(middles[at + 1 : end] ^ middles[at])
            for offset in np.flatnonzero(bits <= 2 * _SAME_BITS):
                second = films[at + 1 + int(offset)]
                apart = _films_apart(prints[first], prints[second])
                if apart is not None:
                    edges[min(first, second), max(first, second)] = apart / 255
        return edges

    def _difference(self, first: int, second: int, window: Window | None) -> float:
        """Grey levels of the worst block; of a part `second` in the whole `first` where a window is given."""
        one, other = self._contents[first], self._contents[second]
        key = (one.hash, other.hash + (b"" if window is None else b"/part"))
        known = self._differences.get(key)
        if known is None:
            self._check()
            pictures = self._picture(one.hash), self._picture(other.hash)
            known = 255.0
            if pictures[0] is not None and pictures[1] is not None:
                if window is None:
                    whole = difference(pictures[0], pictures[1])
                    known = 255.0 if whole is None else whole
                else:
                    known = difference_of_part(pictures[0], pictures[1], window)
            self._differences[key] = known
        return known

    def _picture(self, content: bytes) -> Image.Image | None:
        if content in self._opened:
            self._opened.move_to_end(content)
            return self._opened[content]
        picture: Image.Image | None = None
        thumbnail = self._previews.thumbnail(content)
        if thumbnail:
            try:
                with open_thumbnail(thumbnail) as image:
                    picture = image.convert("RGB")
                    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
            except DAMAGED:
                picture = None
        self._opened[content] = picture
        if len(self._opened) > _KEPT_PREVIEWS:
            self._opened.popitem(last=False)
        return picture

    def _check(self) -> None:
        if self._stop is not None and self._stop.is_set():
            raise StoppedError("The search for duplicates was stopped.")

    def _tell(self, stage: Literal["look", "compare"], done: int, total: int) -> None:
        if self._progress is not None:
            self._progress(DuplicateProgress(stage, done, total))


def _contents(store: Store) -> list[_Content]:
    with store.reading() as connection:
        wanted = shown_items(connection, None)
        rows = fetch(
            connection,
            "SELECT m.content_hash, m.id, m.kind, m.width, m.height, m.size, m.duration_s, m.taken_at, "
            f"m.mtime_ns, m.name FROM media m WHERE {wanted.sql} ORDER BY m.id",
            wanted.values,
        )
    held: dict[bytes, list[tuple[Any, ...]]] = {}
    for content, *described in rows:
        held.setdefault(content, []).append(tuple(described))
    contents = []
    for content, items in held.items():
        _, kind, width, height, size, duration_s, taken_at, *_ = items[0]
        ids = tuple(media_id for media_id, *_, mtime_ns, name in sorted(items, key=_plainness))
        contents.append(
            _Content(content, kind, ids, width or 0, height or 0, size, duration_s or 0.0, taken_at)
        )
    return contents


def _plainness(item: tuple[Any, ...]) -> tuple[int, int, int]:
    """Of files with the same bytes the plainest first: a copy is named after another file, and is younger."""
    media_id, *_, mtime_ns, name = item
    return len(os.path.basename(loaded_name(name))), mtime_ns, media_id  # noqa: PTH119 - keeps escapes


def _quality(content: _Content) -> tuple[int, int, str, int]:
    """The best first: most pixels, most bytes, oldest."""
    return -content.width * content.height, -content.size, content.taken_at or "9", content.ids[0]


def _alike(codes: NDArray[np.uint64], check: Callable[[], None]) -> list[tuple[int, int, int]]:
    """Pairs of positions whose hashes are near, and by how many bits; of each the nearest few.

    Every code is compared with every other: 64 at a time, which is faster than an index at this size.
    """
    pairs = []
    for start in range(0, len(codes), _BLOCK):
        check()
        block = codes[start : start + _BLOCK]
        bits = np.bitwise_count(block[:, None] ^ codes[None, start:])
        for row, column in np.argwhere(bits <= _NEAR_BITS):
            if column > row:
                pairs.append((start + int(row), start + int(column), int(bits[row, column])))
    return pairs


def _similar(
    vectors: NDArray[np.float32],
    taken: NDArray[np.int64],
    among: NDArray[np.bool_],
    check: Callable[[], None],
) -> list[tuple[int, int]]:
    """Pairs of those `among` whose vectors are near, and whose dates agree or one is missing.

    Of each the nearest few. Shots of a burst differ in their dates, and mostly in nothing else.
    """
    pairs = []
    for start in range(0, len(vectors), _VECTOR_BLOCK):
        check()
        cosines = vectors[start : start + _VECTOR_BLOCK] @ vectors[start:].T
        # Where nearly everything is near, the nearest must do.
        least = _PART_COSINE
        while np.count_nonzero(cosines >= least) > _NEIGHBOURS * len(cosines) and least < 0.99:
            least += 0.03
        rows, columns = np.nonzero(cosines >= least)
        one, other = rows + start, columns + start
        is_dated = (taken[one] >= 0) & (taken[other] >= 0)
        kept = (columns > rows) & among[one] & among[other] & ~(is_dated & (taken[one] != taken[other]))
        rows, columns = rows[kept], columns[kept]
        order = np.lexsort((-cosines[rows, columns], rows))
        rows, columns = rows[order], columns[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        nearest = rank < _PARTS_OF_ONE
        pairs += list(zip((rows[nearest] + start).tolist(), (columns[nearest] + start).tolist()))
    return pairs


def _with_cosines(
    pairs: Sequence[tuple[int, int, int]], vectors: NDArray[np.float32]
) -> Iterable[tuple[int, int, float]]:
    if not pairs:
        return
    first, second, _ = np.array(pairs).T
    for start in range(0, len(pairs), 10_000):
        a, b = first[start : start + 10_000], second[start : start + 10_000]
        cosines = np.einsum("nd,nd->n", vectors[a], vectors[b])
        yield from zip(a.tolist(), b.tolist(), cosines.tolist())


def _cells_apart(lumas: NDArray[np.uint8], pairs: Sequence[tuple[int, int]]) -> NDArray[np.float32]:
    """The worst 4 x 4 cell's difference of two fingerprints in grey levels, float32 [pairs]."""
    apart = np.empty(len(pairs), np.float32)
    for start in range(0, len(pairs), 4096):
        first, second = np.array(pairs[start : start + 4096]).T
        apart[start : start + 4096] = _worst_cells(lumas[first], lumas[second])
    return apart


def _worst_cells(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.float32]:
    differing = np.abs(one.astype(np.int16) - other)
    cells = differing.reshape(len(differing), 8, 4, 8, 4).mean(axis=(2, 4), dtype=np.float32)
    worst: NDArray[np.float32] = cells.max(axis=(1, 2))
    return worst


def _films_apart(one: Sequence[Print], other: Sequence[Print]) -> float | None:
    """The median frame's difference in grey levels of two films that are one, else None."""
    apart = []
    for frame in one:
        nearest = min(other, key=lambda candidate: abs(candidate.t_ms - frame.t_ms))
        if abs(nearest.t_ms - frame.t_ms) <= _FRAME_MS:
            apart.append(float(_worst_cells(frame.luma[None], nearest.luma[None])[0]))
    needed = _FRAMES_PART * max(len(one), len(other))
    agreeing = [value for value in apart if value <= _FRAME_CELLS]
    return float(np.median(agreeing)) if agreeing and len(agreeing) >= needed else None


def _grouped(
    best_first: Sequence[int], edges: _Edges
) -> tuple[set[int], list[tuple[tuple[int, ...], float]]]:
    """Groups of which every member is joined to the first one, and the set of first ones and loners."""
    neighbours: dict[int, dict[int, float]] = {}
    for (a, b), distance in edges.items():
        neighbours.setdefault(a, {})[b] = distance
        neighbours.setdefault(b, {})[a] = distance
    taken: set[int] = set()
    heads: dict[int, list[int]] = {}
    for at in best_first:
        if at not in taken:
            heads[at] = []
            taken |= neighbours.get(at, {}).keys()
    for at in best_first:
        if at not in heads:
            # A part can lie in two pictures that overlap: it goes to the one that it is most like.
            own = neighbours[at]
            heads[min((head for head in own if head in heads), key=lambda head: own[head])].append(at)
    groups = []
    for head, members in heads.items():
        if members:
            order = sorted(members, key=lambda at: (neighbours[head][at], at))
            groups.append(((head, *order), max(neighbours[head][at] for at in members)))
    return set(heads), groups
