"""Bringing a library up to date: walk, compare, read, embed, write, forget.

Decoding processes work ahead while this process embeds; a bounded number of decoded files waits between
them. Files are written in transactions of up to `write_files`, at least every `write_s` seconds, each with
everything that belongs to it: whenever the run ends, by Ctrl-C, an error or a kill, the library is whole
and the next run goes on.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..model.pixels import PixelBudget
from ..model.raw_photo import NOT_INSTALLED
from ..reasons import unread_file
from .decode import DecodeLimits, DecodeTask, Description, Piece
from .forgetting import forget_gone
from .hashing import hash_ahead
from .messages import Done, Failed, Part
from .previews import Previews, Strip
from .reading import Reading
from .records import (
    FailedMedia,
    IndexReport,
    KnownFile,
    Space,
)
from .scenes import SceneSettings
from .store import Store
from .survey import Todo, survey
from .tally import IndexProgress, Tally
from .workers import Answer, WorkerPool, WorkerSettings, default_worker_count

Embed = Callable[[Sequence[dict[str, Any]]], NDArray[np.float32]]
"""Inputs as `Embedder.embed` takes them to float32 [n, H], rows L2-normalised, full width."""


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How a library is indexed. `batch_layers`: images and pairs of frames embedded together.

    `strip_bytes`: how much of the pictures of a film's scenes waits in memory for the film's end.

    `is_background`: the thread that indexes runs behind others from its first embedding on, where a thread
    can (Linux). It does not get its priority back.
    """

    workers: WorkerSettings = field(default_factory=lambda: WorkerSettings(default_worker_count()))
    limits: DecodeLimits = field(default_factory=DecodeLimits)
    scenes: SceneSettings = field(default_factory=SceneSettings)
    batch_layers: int = 32
    strip_bytes: int = 2**25
    write_files: int = 500
    write_s: float = 3.0
    worker_command: tuple[str, ...] | None = None
    is_background: bool = False


class Indexer:
    """One indexing run into an open store. Make a new one for every run."""

    def __init__(
        self,
        store: Store,
        previews: Previews,
        space: Space,
        *,
        embed: Embed,
        budget: PixelBudget,
        settings: IndexSettings,
        progress: Callable[[IndexProgress], None] | None = None,
        stop: threading.Event | None = None,
    ) -> None:
        """`progress` is called from the thread of `run`; `stop`, once set, ends the run early and whole."""
        self._store = store
        self._previews = previews
        self._space = space
        self._embed = embed
        self._budget = budget
        self._settings = settings
        self._stop = stop or threading.Event()
        self._tally = Tally(progress)
        self._reading: dict[int, Reading] = {}
        self._by_content: dict[bytes, Reading] = {}
        self._batch: list[tuple[Reading, int, dict[str, Any]]] = []
        self._batch_layers = 0
        self._ready: list[Reading] = []
        self._quarantined: list[FailedMedia] = []
        self._written_at = time.monotonic()
        self._taken_over: set[int] = set()

    def run(self, paths: Sequence[str], *, changes: bool = False) -> IndexReport:
        """Index `paths`, absolute and existing. Returns when everything is done, or `stop` was set.

        `changes`: something happened at `paths`; see `survey`.

        Raises:
            LibraryStorageError: the disk is full, for example; what was written before stays.
        """
        start = time.monotonic()
        found = survey(
            self._store,
            self._space,
            paths,
            changes=changes,
            on_found=self._tally.scanned,
            stop=self._stop,
        )
        self._tally.unchanged = found.unchanged
        self._tally.failures.extend(found.failures)
        self._leave_alone(found.left_alone)
        self._read(found.todo)
        if not self._stop.is_set():
            gone = [file.media_id for file in found.gone if file.media_id not in self._taken_over]
            self._tally.removing(len(gone))
            self._tally.removed = forget_gone(self._store, self._previews, self._space, found, gone)
        return self._tally.report(
            self._store.counts(self._space),
            self._store.failures(self._space),
            places=found.places,
            seconds=time.monotonic() - start,
        )

    def _leave_alone(self, files: Iterable[Todo]) -> None:
        """Note raw files that nothing installed can read, without looking into them."""
        for todo in files:
            self._tally.failed(todo.path, NOT_INSTALLED)
            known, file = todo.known, todo.file
            is_noted = known is not None and (known.size, known.mtime_ns) == (file.size, file.mtime_ns)
            if known is None or (known.state == "failed" and not is_noted):
                self._quarantined.append(FailedMedia(file, b"", NOT_INSTALLED))

    # Reading: hash ahead, decode in processes, embed in batches, write

    def _read(self, todo: Sequence[Todo]) -> None:
        self._tally.begin(len(todo))
        self._written_at = time.monotonic()
        settings = self._settings
        with (
            ThreadPoolExecutor(2, thread_name_prefix="hashing") as hashing,
            WorkerPool(settings.workers, command=settings.worker_command) as pool,
        ):
            try:
                hashed = hash_ahead(hashing, todo, ahead=4 * settings.workers.count)
                self._work(hashed, pool)
                self._embed_batch()
            finally:
                # Also on the way out of an error or Ctrl-C: what is complete is kept.
                hashing.shutdown(wait=False, cancel_futures=True)
                self._write()

    def _work(self, hashed: Iterator[tuple[Todo, bytes | OSError]], pool: WorkerPool) -> None:
        numbers = itertools.count()
        is_more = True
        while not self._stop.is_set() and (is_more or pool.open_tasks):
            while is_more and pool.open_tasks < 2 * self._settings.workers.count:
                upcoming = next(hashed, None)
                is_more = upcoming is not None
                if upcoming is not None:
                    self._begin(*upcoming, next(numbers), pool)
                if self._stop.is_set():
                    return
            if pool.open_tasks and (answer := pool.next()) is not None:
                self._take(answer)
            if self._is_write_due():
                self._write()

    def _begin(self, todo: Todo, content: bytes | OSError, number: int, pool: WorkerPool) -> None:
        """Decide what a file needs: nothing but a note, a look at another file like it, or decoding."""
        if isinstance(content, OSError):
            self._fail_unread(todo, unread_file(content))
        elif self._is_known_content(todo, content):
            self._tally.advance(todo.path)
        elif content in self._by_content:
            self._by_content[content].twins.append(todo)
        else:
            self._reading[number] = self._by_content[content] = Reading(todo, content)
            task = DecodeTask(todo.path, self._budget, self._settings.limits, self._settings.scenes)
            pool.submit(number, task, parts=task.limits.parts)

    def _is_known_content(self, todo: Todo, content: bytes) -> bool:
        """Whether the library has this content already, which then costs no decoding."""
        known = todo.known
        if known is not None and known.content_hash == content and known.state != "pending":
            self._store.touch(known.media_id, todo.file)
            self._tally.unchanged += known.state == "indexed"
            return True
        twins = [
            twin
            for twin in self._store.find_content(content, todo.file.size, self._space)
            if twin.state == "indexed"
        ]
        if not twins:
            return False
        moved = next((twin for twin in twins if not self._is_there(twin)), None)
        if moved is not None:
            self._store.rename(moved.media_id, todo.file)
            self._taken_over.add(moved.media_id)
            self._tally.updated += 1
        else:
            self._store.copy(twins[0].media_id, todo.file)
            self._tally.wrote(todo)
        return True

    def _is_there(self, known: KnownFile) -> bool:
        item = self._store.media(known.media_id)
        return item is not None and os.path.lexists(item.path)

    def _take(self, answer: Answer) -> None:
        reading = self._reading[answer.key]  # type: ignore[index]
        match answer.message:
            case Part(value=Piece() as piece):
                self._add_piece(reading, piece)
            case Part(value=Description() as description):
                reading.description = description
            case Done():
                del self._reading[answer.key]  # type: ignore[arg-type]
                if not reading.pieces or reading.description is None:
                    self._fail(reading, "its decoder ended without a result")
                elif reading.is_embedded:
                    self._complete(reading)
            case Failed(reason=reason, is_access=is_access):
                del self._reading[answer.key]  # type: ignore[arg-type]
                self._fail(reading, reason, is_access=is_access)

    def _add_piece(self, reading: Reading, piece: Piece) -> None:
        index = len(reading.pieces)
        reading.pieces.append((piece.t0_ms, piece.t1_ms))
        if isinstance(piece.pixels, np.ndarray):
            self._batch.append((reading, index, {"image": piece.pixels}))
            self._batch_layers += 1
        else:
            self._batch.append((reading, index, {"video": piece.pixels}))
            self._batch_layers += -(-len(piece.pixels.frames) // self._budget.temporal_patch_size)
            times = tuple(float(t) for t in piece.pixels.times_s)
            reading.strips.append(Strip(piece.t0_ms, times, piece.strip or b""))
            reading.held_bytes += len(piece.strip or b"")
            if reading.held_bytes >= self._settings.strip_bytes:
                self._keep_strips(reading)
        if self._batch_layers >= self._settings.batch_layers:
            self._embed_batch()

    def _keep_strips(self, reading: Reading) -> None:
        """Write the strips of a long film while it is read: an hour of it has hundreds of megabytes."""
        if not reading.finished:
            self._previews.write_strips(reading.content, reading.strips, is_first=not reading.is_continued)
            reading.is_continued = True
        reading.strips.clear()
        reading.held_bytes = 0

    def _embed_batch(self) -> None:
        batch = [entry for entry in self._batch if not entry[0].finished]
        self._batch, self._batch_layers = [], 0
        if not batch:
            return
        vectors = self._embed([given for _, _, given in batch])
        for (reading, index, _), vector in zip(batch, vectors, strict=True):
            if np.isfinite(vector).all():
                reading.vectors[index] = vector
            else:  # an overflow of half precision, say
                self._fail(reading, "the model's vector for it is not finite", is_models=True)
        for reading in {id(entry[0]): entry[0] for entry in batch}.values():
            if reading.is_embedded:
                self._complete(reading)

    def _complete(self, reading: Reading) -> None:
        if not reading.finished:
            reading.finished = True
            self._ready.append(reading)
            self._tally.advance(reading.todo.path)

    def _fail(
        self, reading: Reading, reason: str, *, is_access: bool = False, is_models: bool = False
    ) -> None:
        if reading.finished:
            return
        reading.finished = True
        del self._by_content[reading.content]
        if reading.is_continued and not self._store.holds(reading.content):
            self._previews.drop([reading.content])
        for todo in (reading.todo, *reading.twins):
            if is_access:
                self._fail_unread(todo, reason)
                continue
            self._quarantined.append(FailedMedia(todo.file, reading.content, reason, is_models))
            self._tally.failed(todo.path, reason)
            self._tally.advance(todo.path)

    def _fail_unread(self, todo: Todo, reason: str) -> None:
        self._tally.failed(todo.path, reason)
        if todo.known is None or todo.known.state == "failed":
            # Without a content hash: the next run tries again, since permissions do not show in size and
            # time.
            self._quarantined.append(FailedMedia(todo.file, b"", reason))
        self._tally.advance(todo.path)

    # Writing

    def _is_write_due(self) -> bool:
        is_late = time.monotonic() - self._written_at >= self._settings.write_s
        waiting = len(self._ready) + len(self._quarantined)
        return waiting >= self._settings.write_files or (is_late and waiting > 0)

    def _write(self) -> None:
        """Write what is complete: previews first, so that no item is ever without its own."""
        ready, quarantined = self._ready, self._quarantined
        self._written_at = time.monotonic()
        if ready:
            self._previews.write([reading.preview() for reading in ready])
        if ready or quarantined:
            ids = self._store.write([*(reading.media() for reading in ready), *quarantined], self._space)
            # Only now: what Ctrl-C interrupts on the way is written by the last write of the run.
            self._ready, self._quarantined = [], []
            for reading, media_id in zip(ready, ids, strict=False):
                del self._by_content[reading.content]
                self._tally.wrote(reading.todo)
                for twin in reading.twins:
                    self._store.copy(media_id, twin.file)
                    self._tally.wrote(twin)
                    self._tally.advance(twin.path)
