"""The files of the page: a fixed list, read once, so that no address of a request ever becomes a path."""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

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


@dataclass(frozen=True, slots=True)
class PageFile:
    """One file of the page. `compressed` is its gzip form, None where that would not be smaller."""

    name: str
    media_type: str
    content: bytes
    compressed: bytes | None
    etag: str


def read_page(folder: Path | None) -> Mapping[str, PageFile]:
    """The page's files by address; `/` is index.html. Files of unknown kinds are left out."""
    found: dict[str, PageFile] = {}
    for path in sorted(folder.iterdir()) if folder is not None and folder.is_dir() else ():
        if path.suffix in MEDIA_TYPES and path.is_file():
            file = _read(path)
            found[f"/{path.name}"] = file
            if path.name == "index.html":
                found["/"] = file
    return MappingProxyType(found)


def _read(path: Path) -> PageFile:
    content = path.read_bytes()
    compressed = gzip.compress(content, 9, mtime=0) if path.suffix in _COMPRESSED else content
    return PageFile(
        name=path.name,
        media_type=MEDIA_TYPES[path.suffix],
        content=content,
        compressed=compressed if len(compressed) < len(content) else None,
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
    )
