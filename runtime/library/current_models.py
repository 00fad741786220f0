"""The models that a library is searched and indexed with just now, and whose turn it is to run them.

Which these are may change while the library is open: another process, or a run of `index`, gives it vectors
of another model.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..errors import LibraryError
from .models import Models
from .records import Space
from .running import Asked, Running, check_comparable, check_names, identity_of

if TYPE_CHECKING:
    from ..model.embedder import Embedder
    from ..model.precedence import Precedence
    from .files import Files


class CurrentModels:
    """The models of an open library, chosen when the first one is needed. Safe between threads."""

    def __init__(self, asked: Asked, files: Files, *, progress: Callable[[str, float], None] | None) -> None:
        """`asked` as the caller of `Library.open` did; `progress` as there."""
        self._asked = asked
        self._files = files
        self._progress = progress
        self._lock = threading.Lock()
        self._precedence: Precedence | None = None
        self._now = self._chosen_anew()

    @property
    def now(self) -> Models:
        """The models in use; whoever works with them for longer keeps them."""
        return self._now

    def running(self) -> Running:
        """What would be opened now: what was asked for, else what the library remembers."""
        return self._asked.running(self._files.active_space())

    def check_names(self, space: Space) -> None:
        """Refuse a model that by its name cannot be that of the active `space`, and is not opened for that.

        Raises:
            LibraryError: it says what to do.
        """
        check_names(self._files.reader(), self._asked, space)

    def is_comparable(self, models: Models, embedder: Embedder, space: Space) -> bool:
        """Whether the vectors of `embedder`, one of `models`, are those of the active `space`.

        Not comparable: others were chosen meanwhile, and are `now`.

        Raises:
            LibraryError: they are not, and no others would be chosen; it says what to do.
        """
        try:
            check_comparable(self._files.reader(), self._asked, identity_of(embedder, models.running().model))
        except LibraryError:
            if self._asked.running(space) == models.running():
                raise
            # Indexed with another model by now: by another process, or by a run that has just ended.
            self._change(models)
            return False
        return True

    @property
    def precedence(self) -> Precedence:
        """Who goes first: searches mark themselves here, indexing waits for them."""
        from ..model.precedence import Precedence

        with self._lock:
            if self._precedence is None:
                self._precedence = Precedence()
            return self._precedence

    def run_behind(self, other: CurrentModels) -> None:
        """Let whatever runs models of another open library go first."""
        precedence = other.precedence
        with self._lock:
            self._precedence = precedence

    def close(self, *, wait: bool) -> None:
        """Free the models; see `Models.close`. They are chosen anew with their next use."""
        with self._lock:
            old, self._now = self._now, self._chosen_anew()
        old.close(wait=wait)

    def _change(self, old: Models) -> None:
        """Choose anew, unless another thread has done so; those in use go with their last user."""
        with self._lock:
            if self._now is not old:
                return
            self._now = self._chosen_anew()
        old.close(wait=False)

    def _chosen_anew(self) -> Models:
        return Models(self.running, progress=self._progress)
