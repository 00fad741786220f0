"""What background indexing is still to do: what somebody named, everything, and where something changed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from ..library.records import Folder
from ..library.roots import in_terms_of, innermost, is_inside

Kind = Literal["named", "everything", "changed"]

MANY = 2000
"""So many changes are remembered one by one: a server may be paused for weeks."""


@dataclass(slots=True)
class Wanted:
    """What is to be done; what is named comes first, in the order of naming, then the rest."""

    named: dict[str, None] = field(default_factory=dict)
    everything: bool = False
    changed: dict[str, None] = field(default_factory=dict)
    is_changed_first: bool = False

    def __bool__(self) -> bool:
        return bool(self.named or self.everything or self.changed)

    @property
    def is_too_many(self) -> bool:
        """Whether changes are to be gathered."""
        return len(self.changed) > MANY

    def take(self) -> tuple[Kind, tuple[str, ...]]:
        """The next run."""
        changed_first, self.is_changed_first = self.is_changed_first, False
        if changed_first and self.changed:
            changed, self.changed = tuple(self.changed), {}
            return "changed", changed
        if self.named:
            named, self.named = tuple(self.named), {}
            return "named", named
        if self.everything:
            self.everything, self.changed = False, {}
            return "everything", ()
        changed, self.changed = tuple(self.changed), {}
        return "changed", changed

    def gather(self, roots: Sequence[Folder]) -> None:
        """Remember many changes as the folders they lie in, and many folders as the roots above them.

        What lies in none of the roots is nobody's business.
        """
        owned = [(path, root.path) for path in self.changed if (root := innermost(roots, path)) is not None]
        places = {root if path == root else os.path.dirname(path) for path, root in owned}  # noqa: PTH120
        if len(places) > MANY // 2:
            places = {root for _, root in owned}
        self.changed = dict.fromkeys(sorted(places))

    def forget(self, gone: str, roots: Sequence[Folder]) -> None:
        """The root `gone` was removed: what was named in it is wanted no more, unless other roots hold it."""
        for path in tuple(self.named):
            if is_inside(in_terms_of(path, [gone]), gone) and innermost(roots, path) is None:
                del self.named[path]

    def put_back(self, kind: Kind, paths: tuple[str, ...]) -> None:
        """A run that did not get to its end is wanted still."""
        if kind == "named":
            self.named |= dict.fromkeys(paths)
        elif kind == "everything":
            self.everything = True
        else:
            self.changed = dict.fromkeys(paths) | self.changed
