"""The files of the page: a fixed list, read once, so that no address of a request ever becomes a path."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from .page_script import joined, lean, lean_style, order_of

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".webp": "image/webp",
    ".woff2": "font/woff2",
    ".webmanifest": "application/manifest+json",
}
_COMPRESSED = (".html", ".css", ".js", ".svg", ".webmanifest")
_ENTRY = "main.js"


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page. `compressed` is its gzip form, None where that would not be smaller."""

    name: str
    media_type: str
    content: bytes
    compressed: bytes | None
    etag: str


def read_page(folder: Path | None) -> Mapping[str, PageFile]:
    """The page's files by address; `/` is index.html. Files of unknown kinds are left out.

    The modules that `main.js` imports have no address: it is served with them, as one script.
    """
    if folder is None or not folder.is_dir():
        return MappingProxyType({})
    paths = [path for path in sorted(folder.iterdir()) if path.suffix in MEDIA_TYPES and path.is_file()]
    modules = {path.name: path.read_text("utf-8") for path in paths if path.suffix == ".js"}
    order = order_of(modules, _ENTRY) if _ENTRY in modules else ()
    found: dict[str, PageFile] = {}
    for path in paths:
        if path.name == _ENTRY:
            content = joined(modules, order).encode()
        elif path.name in order:
            continue
        elif path.suffix == ".js":
            content = lean(modules[path.name]).encode()
        elif path.suffix == ".css":
            content = lean_style(path.read_text("utf-8")).encode()
        else:
            content = path.read_bytes()
        found[f"/{path.name}"] = _file(path, content)
    if "/index.html" in found:
        found["/"] = found["/index.html"]
    return MappingProxyType(found)


def _file(path: Path, content: bytes) -> PageFile:
    compressed = gzip.compress(content, 9, mtime=0) if path.suffix in _COMPRESSED else content
    return PageFile(
        name=path.name,
        media_type=MEDIA_TYPES[path.suffix],
        content=content,
        compressed=compressed if len(compressed) < len(content) else None,
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )
