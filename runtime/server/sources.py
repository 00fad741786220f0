"""Where the bytes of a picture or film come from: the request itself, a file of the library, or an address.

    data:image/png;base64,...   or base64 alone: always
    file:///home/me/a.jpg       only when allowed, and only files below indexed folders, links followed first;
                                what is opened then is what was looked at
    https://...                 only when allowed; see `remote.py`

Bytes are put into a file of a private folder for as long as they are needed: decoding happens in other
processes. Nothing here looks at what they hold.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

from ..errors import PartError
from ..library.roots import is_inside
from .media_file import open_inside
from .remote import Remote, RemoteError

_REMOTE = ("http://", "https://")
_OPEN_FILES = "/proc/{pid}/fd"
_PIECE = 1 << 20
_LONGEST_EXTENSION = 16
_BLANKS = str.maketrans("", "", " \t\r\n")


class Sources:
    """Turns addresses into files. `roots` are the indexed folders, None where no local path is allowed;
    `remote` fetches, None where nothing may be fetched."""

    def __init__(
        self, *, roots: Callable[[], Iterable[str]] | None = None, remote: Remote | None = None
    ) -> None:
        self._roots = roots
        self._remote = remote

    def check(self, address: str, *, part: str) -> None:
        """Refuse, without touching it, what comes from where nothing is taken from.

        Raises:
            PartError: it says what would allow it.
        """
        scheme = _scheme(address)
        if scheme in _REMOTE and self._remote is None:
            raise PartError(
                part,
                "addresses are not fetched by this server. Send the file itself as a data URI, "
                "or start the server with --allow-remote-urls.",
            )
        if scheme == "file://" and self._roots is None:
            raise PartError(
                part,
                "local paths are not taken by this server. Send the file itself as a data URI, "
                "or start the server with --allow-local-paths.",
            )

    @contextlib.contextmanager
    def file(self, address: str, *, part: str, go_on: Callable[[], None]) -> Iterator[Path]:
        """A file with what an address leads to, there until the context ends.

        Raises:
            PartError: it leads to nothing that may be taken.
            QvlError: whatever `go_on`, which is called while it is fetched, raises to end it.
        """
        self.check(address, part=part)
        scheme = _scheme(address)
        with tempfile.TemporaryDirectory(prefix="qvl-input-") as folder:  # readable by its owner alone
            if scheme == "file://":
                opened, suffix = self._local(address, part)
                with opened:
                    yield _at_hand(opened, Path(folder) / f"input{suffix}", go_on)
                return
            path = Path(folder) / "input"
            with path.open("wb") as file:
                if scheme in _REMOTE:
                    self._fetch(address, file, part, go_on)
                else:
                    file.write(_decoded(address, part))
            yield path

    def _local(self, address: str, part: str) -> tuple[BinaryIO, str]:
        """The file that a `file://` address names, open, and its extension.

        It lies below an indexed folder whatever links lead to; one that appears in between is not followed.
        """
        nothing = PartError(part, "there is no such file below the indexed folders.")
        try:
            path = os.path.realpath(_path_of(address, part))
            roots = [os.path.realpath(root) for root in (self._roots() if self._roots is not None else ())]
            # One answer for all that is not given out: which files exist elsewhere is nobody's business.
            root = next((root for root in roots if is_inside(path, root)), None)
            file = None if root is None else open_inside(root, os.path.relpath(path, root))
        except (OSError, ValueError) as error:
            raise nothing from error
        if file is None:
            raise nothing
        return file, PurePath(path).suffix[:_LONGEST_EXTENSION]

    def _fetch(self, address: str, file: BinaryIO, part: str, go_on: Callable[[], None]) -> None:
        if self._remote is None:  # as `check` found; for the type checker
            return
        try:
            self._remote.fetch(address, file, go_on=go_on)
        except RemoteError as error:
            raise PartError(part, str(error)) from error


def _scheme(address: str) -> str:
    """`http://`, `https://`, `file://`, `data:`, or nothing for what has none of these."""
    start = address[:8].lower()
    return next((scheme for scheme in (*_REMOTE, "file://", "data:") if start.startswith(scheme)), "")


def _path_of(address: str, part: str) -> str:
    """The path of a `file://` address."""
    split = urlsplit(address)
    if split.netloc not in ("", "localhost") or split.query or split.fragment:
        raise PartError(part, "must be of the form file:///folder/file, with % as %25, ? as %3F, # as %23.")
    return url2pathname(split.path) if os.name == "nt" else unquote(split.path)


def _at_hand(file: BinaryIO, path: Path, go_on: Callable[[], None]) -> Path:
    """Let `path` lead to an open file, whatever lies where it was opened by now.

    Linux has a name for what a process holds open; elsewhere it takes a copy.
    """
    opened = Path(_OPEN_FILES.format(pid=os.getpid()), str(file.fileno()))
    if opened.exists():
        path.symlink_to(opened)
        return path
    with path.open("wb") as copy:
        while piece := file.read(_PIECE):
            go_on()
            copy.write(piece)
    return path


def _decoded(address: str, part: str) -> bytes:
    """The bytes of a data URI (RFC 2397) or of plain base64."""
    text = address
    if _scheme(address) == "data:":
        head, comma, text = address.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise PartError(part, "must be a data URI in base64: data:image/png;base64,...")
    try:
        # Some encoders break lines.
        content = base64.b64decode(text.translate(_BLANKS).encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        what = "its base64 is broken" if text is not address else "is neither a data URI nor base64"
        raise PartError(part, f"{what}. Send data:image/png;base64,... with the whole file.") from error
    if not content:
        raise PartError(part, "the file is empty.")
    return content
