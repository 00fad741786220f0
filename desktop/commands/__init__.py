"""The commands, one a file, in the order in which `--help` lists them."""

from __future__ import annotations

from collections.abc import Callable

from .bench import bench
from .demo import demo
from .desktop import desktop
from .doctor import doctor
from .export import export
from .index import index
from .remove import remove
from .search import search
from .serve import serve
from .similar import similar
from .status import status
from .verify import verify

COMMANDS: dict[str, Callable[..., None]] = {
    "demo": demo,
    "index": index,
    "search": search,
    "serve": serve,
    "desktop": desktop,
    "similar": similar,
    "status": status,
    "remove": remove,
    "export": export,
    "verify": verify,
    "bench": bench,
    "doctor": doctor,
}
