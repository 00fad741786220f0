"""Names for the folders of a library that are no paths: what a program gets, and gives back in a filter.

    "3"              the root with the id 3
    "3.VHJpcA"       its subfolder "Trip": the bytes of the name in base64url, without padding

A key opens nothing. It is compared with the names in the library, so that one which was made up finds
nothing.
"""

from __future__ import annotations

import base64
import os

from ..errors import InputError

_LONGEST = 6000  # base64 of the longest path that systems allow


def folder_key(folder_id: int, name: str = "") -> str:
    """The key of a root, or of its subfolder `name`."""
    if not name:
        return str(folder_id)
    return f"{folder_id}.{base64.urlsafe_b64encode(os.fsencode(name)).decode().rstrip('=')}"


def parse_folder_key(key: str) -> tuple[int, str]:
    """The root's id and the subfolder's name, "" for the root itself.

    Raises:
        InputError: it is no key.
    """
    root, dot, encoded = key.partition(".")
    try:
        is_number = root.isascii() and root.isdigit() and len(root) < 19
        if not is_number or len(key) > _LONGEST or bool(encoded) != bool(dot):
            raise ValueError
        padded = encoded + "=" * (-len(encoded) % 4)
        name = os.fsdecode(base64.b64decode(padded, altchars=b"-_", validate=True))
        if "\0" in name:
            raise ValueError
    except ValueError:
        raise InputError(f"{key[:40]!r} is no folder's key; take one that the facets list.") from None
    return int(root), name
