"""What one indexing run has done so far, how far it is, and its report in the end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from .records import Counts, Failure, IndexReport
from .roots import is_inside

if TYPE_CHECKING:
    from .survey import Todo


@dataclass(frozen=True, slots=True)
class IndexProgress:
    """How far a run is. `done` of `total` files (`total` is None while they are still being found).

    Stage "renew" comes first, and only where the library was indexed with another model: its `total` items
    are to be embedded anew.

    `per_s`: files a second so far; `eta_s`: seconds left at that rate; both None at the beginning.
    """

    stage: Literal["renew", "scan", "embed", "remove"]
    done: int
    total: int | None
    failed: int
    path: str | None = None
    per_s: float | None = None
    eta_s: float | None = None


class Tally:
    """Counts what a run does, and tells `progress` of every step."""

    def __init__(self, progress: Callable[[IndexProgress], None] | None) -> None:
        self.added = self.updated = self.unchanged = self.removed = 0
        self.failures: list[Failure] = []
        self._progress = progress
        self._began_at = time.monotonic()
        self._done = self._total = 0

    def scanned(self, files: int) -> None:
        """So many files were met by now."""
        self._tell(IndexProgress("scan", files, None, 0))

    def begin(self, total: int) -> None:
        """So many files are to be read, from now on."""
        self._total = total
        self._began_at = time.monotonic()

    def advance(self, path: str) -> None:
        """One more of them is done, well or not."""
        self._done += 1
        elapsed = time.monotonic() - self._began_at
        rate = self._done / elapsed if elapsed > 1 else None
        left = self._total - self._done
        self._tell(
            IndexProgress(
                "embed",
                self._done,
                self._total,
                len(self.failures),
                path,
                rate,
                left / rate if rate else None,
            )
        )

    def wrote(self, todo: Todo) -> None:
        """A file is in the library now."""
        if todo.known is None:
            self.added += 1
        else:
            self.updated += 1

    def failed(self, path: str, reason: str) -> None:
        """A file cannot be used."""
        self.failures.append(Failure(path, reason))

    def removing(self, files: int) -> None:
        """So many files are about to be forgotten."""
        self._tell(IndexProgress("remove", 0, files, len(self.failures)))

    def report(
        self, counts: Counts, quarantined: Iterable[Failure], *, places: Sequence[str], seconds: float
    ) -> IndexReport:
        """The report of a run over `places`, of a library that now holds `counts` and `quarantined`."""
        failures = {failure.path: failure for failure in self.failures}
        for failure in quarantined:
            # Quarantined earlier and unchanged: still among what was asked for, still not searchable.
            if any(is_inside(failure.path, place) for place in places):
                failures.setdefault(failure.path, failure)
        return IndexReport(
            items=counts.items,
            photos=counts.photos,
            videos=counts.videos,
            segments=counts.segments,
            added=self.added,
            updated=self.updated,
            unchanged=self.unchanged,
            removed=self.removed,
            failed=tuple(failures[path] for path in sorted(failures)),
            seconds=seconds,
        )

    def _tell(self, progress: IndexProgress) -> None:
        if self._progress is not None:
            self._progress(progress)
