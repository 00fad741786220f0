"""How those who make a model ready tell how far they are."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, float], None]
"""Told a step's name and its fraction done, in [0, 1]. A step that is a sentence, with its full stop, is no
step but news: something that whoever waits should still be able to read when the next step has begun."""


def no_progress(_step: str, _fraction: float) -> None:
    """Nobody listens."""
