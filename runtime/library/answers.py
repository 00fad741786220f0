"""The last few answers about a library, which hold until it changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import apsw

from .connection import count

_REMEMBERED = 16

T = TypeVar("T")


class Answers:
    """What was made of one connection's library. Whoever shares it between threads sees to the order."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, Any] = {}
        self._version: tuple[int, int] | None = None

    def remembered(self, connection: apsw.Connection, key: Hashable, make: Callable[[], T]) -> T:
        """What `make` returned for `key`, or returns now when anything was written since."""
        version = count(connection, "PRAGMA data_version"), connection.total_changes()
        if version != self._version:
            self._answers.clear()
            self._version = version
        if key not in self._answers:
            made = make()
            if len(self._answers) >= _REMEMBERED:
                self._answers.pop(next(iter(self._answers)))
            self._answers[key] = made
        answer: T = self._answers[key]
        return answer
