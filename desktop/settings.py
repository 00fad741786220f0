"""Where things are and which model to use: read once from options and `QVL_*` variables, then passed in.

Typer reads the variables (each option names its own); this module turns what came of it into checked values.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from qvl_local.runtime.errors import InputError
from qvl_local.runtime.machine import installed_version

from .paths import absolute

# The folder in the demo's library that its pictures lie in. The page knows it by this name, too.
SAMPLE_PICTURES = "Sample pictures"


@dataclass(frozen=True, slots=True)
class Settings:
    """The folder of the library, and the model by name (None: the one the library was made with)."""

    library: Path
    model: str | None

    @classmethod
    def read(cls, *, library: str | None = None, model: str | None = None) -> Settings:
        """Check the values and fill in the defaults.

        Raises:
            InputError: a value is empty, or names a file where a folder is needed.
        """
        if model is not None and not model.strip():
            raise InputError("--model: is empty. Name one: tiny, 2b, 8b, a Hugging Face id, or a folder.")
        return cls(
            library=default_library() if library is None else _folder(library, "--library"),
            model=model,
        )


def default_library() -> Path:
    """The library of someone who names none."""
    return user_data_folder() / "library"


def default_demo_library() -> Path:
    """The demo keeps its library and its sample pictures apart from the user's own."""
    return user_data_folder() / "demo"


def user_data_folder() -> Path:
    """Where this system keeps the data of a user's programs."""
    from platformdirs import user_data_path

    return user_data_path("qvl-local", appauthor=False)


def qvl_version() -> str:
    """The version of the installed package."""
    return installed_version() or "unknown (not installed)"


def _folder(text: str, option: str) -> Path:
    if not text.strip():
        raise InputError(f"{option}: is empty. Name a folder.")
    path = absolute(text)
    if path.exists() and not path.is_dir():
        raise InputError(f"{option} {text}: is a file, and a folder is needed.")
    return path
