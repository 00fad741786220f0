"""What the server is doing, in one object, and the thread that tells listeners when it changes."""

from __future__ import annotations

import threading
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from ..errors import QvlError
from ..library.records import Counts
from ..library.store import Store
from ..machine import installed_version
from .file_manager import can_show
from .names import base_name, shown
from .settings import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..library.library import Library
    from ..library.models import ModelState
    from ..library.records import Folder, Mount
    from .events import Broker
    from .jobs import Jobs
    from .settings import ServerSettings
    from .watch import Watch

_TOLD_EVERY_S = 0.25
"""At most four times a second: more is for nobody's eyes."""


class StatusBoard:
    """Puts the status together. Counts are taken again only after the library was written to.

    It reads through a connection of its own, so that no search waits for its counting.
    """

    def __init__(
        self,
        settings: ServerSettings,
        library: Library,
        jobs: Jobs,
        watch: Watch,
        *,
        renewal: Library | None = None,
    ) -> None:
        """`renewal` is the library as it is being indexed, where that is with another model."""
        self._renewal = renewal
        self._settings = settings
        self._library = library
        self._jobs = jobs
        self._watch = watch
        self._store = Store.open(library.path)
        self._lock = threading.Lock()
        self._seen: int | None = None
        self._generation = 0
        self._counted_at = -1
        self._counts = Counts(0, 0, 0, 0, 0)

    def generation(self) -> int:
        """A number that rises whenever the library was written to, by this process or another."""
        with self._lock:
            seen = self._store.generation()
            if seen != self._seen:
                self._seen, self._generation = seen, self._generation + 1
            return self._generation

    def counts(self) -> Counts:
        """What the library holds now."""
        generation = self.generation()
        with self._lock:
            if generation != self._counted_at:
                self._counts, self._counted_at = self._store.counts(), generation
            return self._counts

    def folders(self) -> list[dict[str, Any]]:
        """The folders that are searched, with what they hold and whether they are there."""
        counts = self._store.folder_counts()
        notes = self._watch.notes()
        away = [mount for mount in self._store.mounts() if mount.is_away]
        return [
            {
                "id": folder.id,
                "name": shown(folder.path.rstrip("/\\").replace("\\", "/").rpartition("/")[2]) or folder.path,
                "path": shown(folder.path),
                "items": counts.get(folder.id, 0),
                "available": self._watch.is_there(folder.path),
                "note": notes.get(folder.path) or _note(folder, away),
            }
            for folder in self._store.folders()
            if folder.is_whole
        ]

    def watched(self) -> tuple[str, ...]:
        """All folders with something of the library in them, and the disks below them, which come and go."""
        paths = [folder.path for folder in self._store.folders()]
        return tuple(dict.fromkeys(paths + [mount.path for mount in self._store.mounts()]))

    def status(self) -> dict[str, Any]:
        """The object of `/api/status`."""
        counts = self.counts()
        return {
            "version": installed_version() or "0",
            "library": shown(str(self._library.path)),
            "items": counts.items,
            "photos": counts.photos,
            "videos": counts.videos,
            "segments": counts.segments,
            "failed": counts.failed,
            "generation": self._generation,
            "model": asdict(self._model_state()),
            "indexing": self.indexing(),
            "watching": self._watch.is_watching,
            "can_show_in_folder": is_loopback(self._settings.host) and can_show(),
            "can_pick_folder": self._settings.can_pick_folder,
        }

    def _model_state(self) -> ModelState:
        if self._renewal is not None:
            coming = self._renewal.model_state()
            if coming.state in ("loading", "failed"):
                return coming
        return self._library.model_state()

    def indexing(self) -> dict[str, Any]:
        """What indexing is doing."""
        state = self._jobs.state()
        name = None if state.path_name is None else shown(state.path_name)
        error = None if state.error is None else shown(state.error)
        return asdict(state) | {"path_name": name, "error": error}

    def failures(self) -> list[dict[str, Any]]:
        """The files that cannot be searched, and why."""
        return [
            {
                "path": shown(item.path),
                "name": shown(base_name(item.path)),
                "error": shown(why),
                "id": item.id,
            }
            for item, why in self._store.failed_items()
        ]

    def close(self) -> None:
        """Close the connection."""
        self._store.close()


def _note(folder: Folder, away: Iterable[Mount]) -> str | None:
    """What is to be said of a root with disks that are away, at it or below."""
    names = [shown(base_name(mount.path)) for mount in away if mount.folder_id == folder.id]
    if not names:
        return None
    one = len(names) == 1
    return (
        f"{'The disk' if one else 'Disks'} at {', '.join(names)} {'is' if one else 'are'} not connected. "
        "What is known of the files there is kept."
    )


class Teller:
    """A thread that publishes `status` when it changes and `changed` when the library's content does."""

    def __init__(self, board: StatusBoard, broker: Broker, watch: Watch) -> None:
        self._board = board
        self._broker = broker
        self._watch = watch
        self._generation: int | None = None
        self._last: dict[str, Any] | None = None
        self._arrivals = 0
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="telling of changes", daemon=True)

    def open(self) -> None:
        """Begin to tell."""
        self._thread.start()

    def close(self) -> None:
        """Tell nothing any more."""
        self._closing.set()
        if self._thread.is_alive():
            self._thread.join()

    def _tell(self) -> None:
        while not self._closing.wait(_TOLD_EVERY_S):
            with suppress(QvlError):  # requests tell of it, and its disk may answer again a moment later
                self._look()

    def _look(self) -> None:
        now = self._board.generation()
        if now != self._generation:
            self._watch.follow(self._board.watched())
            if self._generation is not None:
                self._broker.publish("changed", {"generation": now})
            self._generation = now
        known, self._arrivals = self._arrivals, self._broker.arrivals
        if self._broker.listeners:
            status = self._board.status()
            # Who has just come was told an earlier state, and would never hear of a change in between.
            if status != self._last or known != self._arrivals:
                self._last = status
                self._broker.publish("status", status)
