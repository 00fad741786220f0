"""Watching the library's folders: what changes in them goes to the jobs, once it has settled.

One thread a root takes what the system tells of it, one more thread waits until files have stopped growing.
A root that vanishes (an unplugged disk) is waited for and looked at again when it is back. Where the system
cannot watch any more folders, a root is looked at every few minutes instead, and `notes` says so.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Container, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from watchfiles import Change, watch

from ..library.formats import is_media
from ..library.roots import is_inside
from ..library.scanner import IGNORE_FILE, SKIPPED_FOLDERS

log = logging.getLogger(__name__)

_LOOK_S = 5.0
_RESCAN_S = 300.0
_TICK_S = 0.25
# Network shares do not tell what other machines do in them, and a system may lose an event.
_LOOK_AGAIN_S = 6 * 3600.0
_DEBOUNCE_MS, _STEP_MS = 400, 100
# So many places at once are a folder's worth: it is looked at as a whole.
_MANY = 2000
_LOOKED_AT = 5000

QUIET_S = 1.0
"""So long nothing may happen to a file before it counts as written."""

LONGEST_S = 10.0
"""While there is always something happening, what has settled is handed on this often."""

HELD_S = 60.0
"""What is gone waits for what is growing at most so long: both may be two ends of one move."""

_Stamp = tuple[int, int]


@dataclass(slots=True)
class _Place:
    """Where something happened: when last, and how the file looked when it was looked at first like that."""

    event_at: float
    stamp: _Stamp | None = None
    stamp_since: float = 0.0


class Settling:
    """Places where something happened, until it has stopped happening. Times are `time.monotonic` seconds.

    Safe between threads. Files are looked at without holding anybody up; `take` is for one thread.
    """

    def __init__(
        self, *, quiet_s: float = QUIET_S, longest_s: float = LONGEST_S, held_s: float = HELD_S
    ) -> None:
        self.quiet_s = quiet_s
        self._longest_s = longest_s
        self._held_s = held_s
        self._lock = threading.Lock()
        self._places: dict[str, _Place] = {}
        self._first_at = self._last_at = 0.0

    def __len__(self) -> int:
        return len(self._places)

    def add(self, paths: Iterable[str], now: float) -> None:
        """Something happened there."""
        with self._lock:
            for path in paths:
                if not self._places:
                    self._first_at = now
                self._places.setdefault(path, _Place(now)).event_at = now
                self._last_at = now

    def take(self, now: float, *, whole: Container[str] = ()) -> list[str]:
        """The places where nothing happens any more. Those of `whole` are ready without being looked at."""
        with self._lock:
            if now - self._last_at < self.quiet_s and now - self._first_at < self._longest_s:
                return []
            places = [(path, place, place.event_at) for path, place in self._places.items()]
        ready, gone, is_growing = [], [], False
        for path, place, event_at in places:
            if path in whole or self._is_settled(path, place, now):
                ready.append((path, event_at))
            elif os.path.lexists(path):
                is_growing = True
            else:
                gone.append((path, event_at))
        ready += [(path, at) for path, at in gone if not is_growing or now - at >= self._held_s]
        with self._lock:
            # Something may have happened there in the meantime.
            ready = [(path, at) for path, at in ready if self._places[path].event_at == at]
            for path, _ in ready:
                del self._places[path]
            self._first_at = now
        return [path for path, _ in ready]

    def _is_settled(self, path: str, place: _Place, now: float) -> bool:
        """Whether there is something, and it has stopped growing."""
        if os.path.isdir(path) and not os.path.islink(path):  # noqa: PTH112, PTH114
            return _is_settled_folder(path, self.quiet_s)
        try:
            status = os.stat(path)  # noqa: PTH116
        except OSError:
            return os.path.islink(path)  # noqa: PTH114 - a link to nothing grows no more
        stamp = (status.st_size, status.st_mtime_ns)
        if place.stamp != stamp:
            place.stamp, place.stamp_since = stamp, now
            # One that was left alone since its last event need not be looked at twice.
            return _age_s(status.st_mtime_ns) >= self.quiet_s <= now - place.event_at
        return now - place.stamp_since >= self.quiet_s


class Watch:
    """Watches roots. `follow` says which; `changed` is told places below them, from other threads."""

    def __init__(
        self,
        changed: Callable[[list[str]], None],
        *,
        outside: str,
        settling: Settling | None = None,
        look_s: float = _LOOK_S,
        rescan_s: float = _RESCAN_S,
    ) -> None:
        """`outside` is a folder whose changes are nobody's business: that of the library."""
        self._changed = changed
        self._outside = outside
        self._look_s = look_s
        self._rescan_s = rescan_s
        self._lock = threading.Lock()
        self._pending = threading.Event()
        self._settling = Settling() if settling is None else settling
        self._closing = threading.Event()
        self._roots: dict[str, _Root] = {}
        self._settler = threading.Thread(target=self._settle, name="settling changes", daemon=True)

    def open(self) -> None:
        """Begin to hand on what has settled."""
        self._settler.start()

    @property
    def is_watching(self) -> bool:
        """Whether every root that is there is being watched by the system."""
        with self._lock:
            return all(root.is_watching or not root.is_there for root in self._roots.values())

    def notes(self) -> dict[str, str]:
        """What is to be said of roots: that one is away, or cannot be watched."""
        with self._lock:
            return {path: root.note for path, root in self._roots.items() if root.note is not None}

    def is_there(self, path: str) -> bool:
        """Whether a root is there, as far as was seen a few seconds ago."""
        with self._lock:
            root = self._roots.get(path)
        return True if root is None else root.is_there

    def follow(self, paths: Iterable[str]) -> None:
        """Watch these roots from now on, and no others."""
        wanted = set(paths)
        with self._lock:
            if self._closing.is_set():
                return
            gone = [self._roots.pop(path) for path in list(self._roots) if path not in wanted]
            new = [path for path in sorted(wanted) if path not in self._roots]
            for path in new:
                self._roots[path] = _Root(path, self)
            started = [self._roots[path] for path in new]
        for root in gone:
            root.stop.set()
        for root in started:
            root.thread.start()

    def close(self) -> None:
        """Watch nothing any more."""
        self._closing.set()
        self._pending.set()
        with self._lock:
            roots = list(self._roots.values())
            self._roots.clear()
        for root in roots:
            root.stop.set()
        for root in roots:
            root.thread.join()
        if self._settler.is_alive():
            self._settler.join()

    def happened(self, paths: Iterable[str]) -> None:
        """Something happened at these places."""
        with self._lock:
            self._settling.add(paths, time.monotonic())
        self._pending.set()

    def _settle(self) -> None:
        while not self._closing.is_set():
            self._pending.wait()
            if self._closing.wait(_TICK_S):
                return
            with self._lock:
                roots = tuple(self._roots)
            ready = self._settling.take(time.monotonic(), whole=roots)
            with self._lock:
                if not self._settling:
                    self._pending.clear()
            if len(ready) > _MANY:
                ready = [root for root in roots if any(is_inside(path, root) for path in ready)]
            if ready:
                self._changed(ready)


class _Root:
    """One root and the thread that watches it."""

    def __init__(self, path: str, owner: Watch) -> None:
        self.path = path
        self.is_there = True
        self.is_watching = False
        self.note: str | None = None
        self.stop = threading.Event()
        self._owner = owner
        self.thread = threading.Thread(target=self._run, name="watching a folder", daemon=True)

    def _run(self) -> None:
        identity, is_back = _identity(self.path), False
        while not self.stop.is_set():
            if identity is None:
                self.is_there, self.note = False, "The folder is not there. Is its disk connected?"
                if self.stop.wait(self._owner._look_s):
                    return
                identity = _identity(self.path)
                if identity is not None:
                    self.is_there, self.note, is_back = True, None, True
                    self._owner.happened([self.path])
                continue
            try:
                self._watch(identity, is_back=is_back)
            except FileNotFoundError:
                pass
            except (OSError, RuntimeError) as error:
                # The latter are watchfiles' own: it has run out of inotify instances, or of descriptors.
                self.is_watching = False
                self._rescan(identity, error)
            self.is_watching, is_back = False, True
            identity = _identity(self.path)

    def _watch(self, identity: tuple[int, int], *, is_back: bool) -> None:
        """Take what the system tells until the root is another one, or gone.

        `is_back`: for a while it was not watched, and is looked at once more now that it is.
        """
        self.is_watching, self.note = True, None
        look_again_at = time.monotonic() + _LOOK_AGAIN_S
        for changes in watch(
            self.path,
            watch_filter=self._is_ours,
            debounce=_DEBOUNCE_MS,
            step=_STEP_MS,
            stop_event=self.stop,
            rust_timeout=int(1000 * self._owner._look_s),
            yield_on_timeout=True,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            if changes or is_back:
                self._owner.happened(
                    {self._place_of(path) for _, path in changes} | ({self.path} if is_back else set())
                )
                is_back = False
            if time.monotonic() >= look_again_at:
                self._owner.happened([self.path])
                look_again_at = time.monotonic() + _LOOK_AGAIN_S
            if (seen := _identity(self.path)) != identity:
                # What was there before may have been replaced as a whole.
                if seen is not None:
                    self._owner.happened([self.path])
                return

    def _rescan(self, identity: tuple[int, int], error: OSError | RuntimeError) -> None:
        """Look at the root now and then, where the system cannot watch it."""
        reason = getattr(error, "strerror", None) or type(error).__name__
        log.warning("a folder cannot be watched", extra={"reason": reason})
        minutes = max(1, round(self._owner._rescan_s / 60))
        self.note = (
            "The system cannot watch this folder for changes, so it is looked at every "
            f"{minutes} minutes. On Linux a higher fs.inotify.max_user_watches, or max_user_instances, "
            "lets it be watched."
        )
        since = 0.0
        while not self.stop.wait(self._owner._look_s):
            if _identity(self.path) != identity:
                return
            since += self._owner._look_s
            if since >= self._owner._rescan_s:
                self._owner.happened([self.path])
                return  # and try to watch it again

    def _is_ours(self, _change: Change, path: str) -> bool:
        """Whether a walk of the root could come by; of what is gone nobody knows what it was."""
        if is_inside(path, self._owner._outside):
            return False
        name = os.path.relpath(path, self.path)
        *folders, last = Path(name).parts or ("",)
        if any(part.startswith(".") or part.lower() in SKIPPED_FOLDERS for part in folders):
            return False
        if last in (IGNORE_FILE, ""):
            return True
        if last.startswith("."):
            return False
        return is_media(last) or not os.path.isfile(path)  # noqa: PTH113

    def _place_of(self, path: str) -> str:
        return os.path.dirname(path) if os.path.basename(path) == IGNORE_FILE else path  # noqa: PTH119, PTH120


def _identity(path: str) -> tuple[int, int] | None:
    """What tells a folder from another one of its name; None where there is none that can be looked at."""
    try:
        status = os.stat(path)  # noqa: PTH116 - keeps surrogate escapes
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _is_settled_folder(path: str, quiet_s: float) -> bool:
    """Whether no picture in a folder or below was written a moment ago, as far as it is looked through."""
    looked_at = 0
    for folder, _, names in os.walk(path):
        for name in names:
            looked_at += 1
            if looked_at > _LOOKED_AT:
                return True
            if is_media(name):
                with suppress(OSError):
                    status = os.stat(os.path.join(folder, name))  # noqa: PTH116, PTH118
                    if 0 <= _age_s(status.st_mtime_ns) < quiet_s:
                        return False
    return True


def _age_s(mtime_ns: int) -> float:
    """How long ago a file was written, by its own clock; files from the future are of no age."""
    return time.time() - mtime_ns / 1e9
