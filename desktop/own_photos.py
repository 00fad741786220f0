"""The built-in model and photographs: who indexes their own with it is told that it knows nothing of them.

The page says the same by the same rule: the model is the built-in one, and not every folder is the demo's.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .settings import SAMPLE_PICTURES, default_library
from .text import shell_path

if TYPE_CHECKING:
    from qvl_local.runtime import Library

# A shell makes a thousand names of `*.jpg`, and no line shall.
_MOST_NAMED = 4


def caution(library: Library, given: Sequence[Path] = ()) -> str:
    """What the built-in model is, and the command to use instead; empty where there is nothing to say.

    Args:
        library: as it is open.
        given: what is about to be indexed into it.
    """
    from qvl_local.runtime.model.checkpoints import TINY

    if library.model != TINY:
        return ""
    folders = library.folders()
    if all(place.name == SAMPLE_PICTURES for place in (*given, *(Path(one.path) for one in folders))):
        return ""
    # Of a library that is indexed any one folder will do: a new model embeds all of them anew.
    named = given or [Path(one.path) for one in folders if one.is_whole and Path(one.path).exists()][:1]
    words = [shell_path(str(place)) for place in named]
    if not 0 < len(words) <= _MOST_NAMED:
        words = ["PATH..."]
    if library.path != default_library():
        words += ["--library", shell_path(str(library.path))]
    return (
        "The built-in model, tiny, only knows drawn sample scenes and nothing of your own photos. For those: "
        f"qvl-local index {' '.join(words)} --model 2b (downloads 8.5 GB, once)"
    )
