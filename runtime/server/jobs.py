"""Indexing in the background: one run at a time, from a queue that merges what is wanted.

    jobs.add(["/home/me/Pictures"])     a folder or file that somebody named
    jobs.changed([...])                 places below known folders where something happened
    jobs.start()                        everything that the library knows

A run that is paused, or makes room for something newer, keeps what it has written; indexing is incremental,
so going on means comparing again. Knows the library; knows nothing of HTTP, models or searches: the library
itself lets searches go first.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from ..errors import InputError, LibraryBusyError, QvlError, StoppedError
from ..library.indexer import IndexSettings
from ..library.library import Library
from ..library.roots import in_terms_of, is_inside
from ..library.store import Store
from ..library.tally import IndexProgress
from ..library.workers import WorkerSettings, default_worker_count
from .wanted import Kind, Wanted

log = logging.getLogger(__name__)

_BUSY_RETRY_S = 10.0
_FIRST_RETRY_S = 30.0
_LONGEST_RETRY_S = 900.0
# A long run makes room for what changed meanwhile, but not so often that it gets nowhere.
_MAKES_ROOM_AFTER_S = 60.0
_STOP_LIMIT_S = 60.0


@dataclass(frozen=True, slots=True)
class JobState:
    """What indexing is doing. `done` of `total` files (None while they are still being found) in this run.

    `stage` as in `IndexProgress`, None when idle; `path_name` is the last file's name. `error` says why the
    last run did not end well, `retry_s` in how many seconds it is tried again.
    """

    state: Literal["idle", "running", "paused"] = "idle"
    stage: str | None = None
    done: int = 0
    total: int | None = None
    failed: int = 0
    per_s: float | None = None
    eta_s: float | None = None
    path_name: str | None = None
    error: str | None = None
    retry_s: float | None = None


def background_settings() -> IndexSettings:
    """How a server indexes: behind everything else, in small batches."""
    # A core stays free for searches.
    count = max(1, default_worker_count() - 1)
    return IndexSettings(
        workers=WorkerSettings(count, is_background=True), batch_layers=8, is_background=True
    )


class Jobs:
    """The background indexing of one library. Every method may be called from any thread."""

    def __init__(self, library: Library) -> None:
        """Nothing runs before `open`. `library` should have been opened with `background_settings`."""
        self._library = library
        self._changes = threading.Condition()
        self._wanted = Wanted()
        self._running: tuple[Kind, tuple[str, ...]] | None = None
        self._progress: IndexProgress | None = None
        self._stop = threading.Event()  # of the run that is going on
        self._is_paused = self._is_closing = self._is_dropped = False
        self._holders = 0
        self._error: str | None = None
        self._failures_in_a_row = 0
        self._retry_at: float | None = None
        self._began_at = 0.0
        self._thread = threading.Thread(target=self._work, name="indexing jobs", daemon=True)

    def open(self) -> None:
        """Begin with what is wanted."""
        self._thread.start()

    # What is wanted

    def add(self, paths: Iterable[str]) -> None:
        """Index these folders and files, absolute paths that exist, before everything else."""
        with self._changes:
            new = dict.fromkeys(paths)
            self._wanted.named = new | self._wanted.named
            if new and self._running is not None and self._running[0] != "changed":
                self._end_run()
            self._wake()

    def add_folder(self, path: str) -> None:
        """As `add`, for one folder that the library shall know of as soon as this returns, where it can."""
        with suppress(LibraryBusyError), self._between_runs():
            remember_folders(self._library.path, [path])
        self.add([path])

    def changed(self, paths: Iterable[str]) -> None:
        """Look again at these places below the library's folders.

        Very many are remembered as the folders that they lie in.
        """
        with self._changes:
            self._wanted.changed |= dict.fromkeys(paths)
            is_too_many = self._wanted.is_too_many
            self._changes.notify_all()
        if is_too_many:
            with suppress(QvlError):  # with the next change, then
                roots = self._library.folders()
                with self._changes:
                    self._wanted.gather(roots)

    def start(self) -> None:
        """Bring everything that the library knows up to date, also where that was paused."""
        with self._changes:
            self._is_paused = False
            self._wanted.everything = True
            self._wake()

    def pause(self) -> None:
        """End the run that is going on, and begin none until `resume`."""
        with self._changes:
            self._is_paused = True
            self._end_run()
            self._changes.notify_all()

    def resume(self) -> None:
        """Go on where `pause` came in between."""
        with self._changes:
            self._is_paused = False
            self._wake()

    def stop(self) -> None:
        """End the run that is going on, and forget what else was wanted."""
        with self._changes:
            self._wanted = Wanted()
            self._is_dropped = self._running is not None
            self._is_paused = False
            self._error, self._retry_at = None, None
            self._end_run()
            self._changes.notify_all()

    def state(self) -> JobState:
        """What is going on now."""
        with self._changes:
            progress, running = self._progress, self._running
            retry_s = None if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())
            state = JobState(error=self._error, retry_s=retry_s)
            if self._is_paused:
                state = replace(state, state="paused")
            elif running is not None:
                state = replace(state, state="running", stage="scan")
            if progress is None or state.state == "idle":
                return state
            return replace(
                state,
                stage=progress.stage,
                done=progress.done,
                total=progress.total,
                failed=progress.failed,
                per_s=progress.per_s,
                eta_s=progress.eta_s,
                path_name=None if progress.path is None else Path(progress.path).name,
            )

    def is_idle(self) -> bool:
        """Whether nothing runs, and nothing will by itself."""
        with self._changes:
            return self._running is None and (self._is_paused or not self._wanted)

    def remove_folder(self, folder_id: int) -> int:
        """Forget a root and what it holds, and return how many items that were. Its files stay.

        A run that is going on makes room, and goes on with the rest.

        Raises:
            LibraryBusyError: another process is indexing into the library.
        """
        with self._between_runs(), Store.open(self._library.path, mode="write") as store:
            gone = next((folder.path for folder in store.folders() if folder.id == folder_id), None)
            removed = store.remove_folder(folder_id)
            if gone is not None:
                with self._changes:
                    # Indexing it would make a root of it again.
                    self._wanted.forget(gone, store.folders())
        return removed

    def end(self) -> None:
        """Let the run that is going on come to its end, and begin no other; does not wait for it."""
        with self._changes:
            self._is_closing = True
            self._stop.set()
            self._changes.notify_all()
        self._library.precedence.end()

    def close(self) -> None:
        """End the run that is going on and wait for it; what it has written is kept."""
        self.end()
        if self._thread.is_alive():
            self._thread.join()

    # The thread

    def _work(self) -> None:
        while True:
            with self._changes:
                while not self._is_closing and (wait_s := self._wait_s()) != 0:
                    self._changes.wait(wait_s)
                if self._is_closing:
                    return
                run = self._running = self._wanted.take()
                self._stop.clear()
                self._is_dropped = False
                self._progress, self._retry_at, self._began_at = None, None, time.monotonic()
            error = self._run(*run)
            with self._changes:
                self._running = None
                if not self._is_dropped:
                    self._settle(run, error)
                self._changes.notify_all()

    def _wait_s(self) -> float | None:
        """How long to wait before the next run; None is until something happens, 0 is no longer."""
        if not self._wanted or self._is_paused or self._holders:
            return None
        return 0 if self._retry_at is None else max(0.0, self._retry_at - time.monotonic())

    def _settle(self, run: tuple[Kind, tuple[str, ...]], error: Exception | None) -> None:
        """What becomes of a run that is over."""
        if error is None:
            if self._stop.is_set():
                self._wanted.put_back(*run)
            else:
                self._progress = None
                self._error, self._failures_in_a_row = None, 0
            return
        self._error = str(error) if isinstance(error, QvlError) else _bug(error)
        self._progress = None
        if isinstance(error, InputError) or not isinstance(error, QvlError):
            return  # trying again would end the same
        self._wanted.put_back(*run)
        if isinstance(error, LibraryBusyError):
            retry_s = _BUSY_RETRY_S
        else:
            retry_s = min(_LONGEST_RETRY_S, _FIRST_RETRY_S * 2**self._failures_in_a_row)
            self._failures_in_a_row += 1
        self._retry_at = time.monotonic() + retry_s

    def _run(self, kind: Kind, paths: tuple[str, ...]) -> Exception | None:
        """One run, in a thread of its own: it lowers its priority and cannot raise it again."""
        outcome: list[Exception] = []

        def work() -> None:
            try:
                self._index(kind, paths)
            except StoppedError:
                pass
            except Exception as error:
                if not isinstance(error, QvlError):
                    log.exception("indexing failed")
                else:
                    reason, *_ = str(error).splitlines() or [type(error).__name__]
                    log.warning("indexing did not end well", extra={"reason": reason})
                outcome.append(error)

        thread = threading.Thread(target=work, name="indexing")
        thread.start()
        thread.join()
        return outcome[0] if outcome else None

    def _index(self, kind: Kind, paths: tuple[str, ...]) -> None:
        library = self._library
        if kind == "changed":
            library.update(paths, progress=self._note, stop=self._stop)
            return
        if kind == "named":
            there = [path for path in paths if Path(path).exists()]
            # At once: fetching a model may take long, and the wish must outlive this process.
            remember_folders(library.path, there)
            if not there:
                return
            library.index(there, progress=self._note, stop=self._stop)
            return
        if library.folders():  # without one, no model need be fetched yet
            library.index(progress=self._note, stop=self._stop)

    def _note(self, progress: IndexProgress) -> None:
        self._progress = progress
        if progress.stage == "scan":
            # Until it has looked around a run has nothing to show for its time, which may be minutes.
            self._began_at = time.monotonic()
            return
        if not self._wanted.changed or time.monotonic() - self._began_at < _MAKES_ROOM_AFTER_S:
            return
        with self._changes:
            # What changed goes before the rest of a long run.
            if self._running is not None and self._running[0] != "changed":
                self._wanted.is_changed_first = True
                self._stop.set()  # between two files: nothing need be dropped

    @contextmanager
    def _between_runs(self) -> Iterator[None]:
        """For the time of a block no run of ours is going on; the one that was goes on afterwards.

        Raises:
            LibraryBusyError: it did not end in time.
        """
        with self._changes:
            self._holders += 1
        try:
            deadline = time.monotonic() + _STOP_LIMIT_S
            with self._changes:
                self._end_run()
                while self._running is not None and self._changes.wait(deadline - time.monotonic()):
                    pass
                if self._running is not None:
                    raise LibraryBusyError("Indexing did not make room in time. Try again in a moment.")
            yield
        finally:
            with self._changes:
                self._holders -= 1
                self._changes.notify_all()

    def _end_run(self) -> None:
        """Let the run that is going on come to its end: what is read by now is written, no more is."""
        self._stop.set()
        if self._running is not None:
            self._library.precedence.drop()

    def _wake(self) -> None:
        self._retry_at = None
        self._changes.notify_all()


def remember_folders(library: Path, paths: Iterable[str]) -> None:
    """Make roots of the folders among `paths` that lie in none.

    Raises:
        LibraryBusyError: another process is indexing into the library.
    """
    with Store.open(library, mode="write") as store:
        for path in paths:
            known = [folder.path for folder in store.folders() if folder.is_whole]
            named = in_terms_of(path, known)
            if Path(named).is_dir() and not any(is_inside(named, folder) for folder in known):
                store.add_folder(named)


def _bug(error: Exception) -> str:
    return f"Indexing stopped: {type(error).__name__}. This is a bug in qvl-local; its log says where."
