"""Why the system or a decoder did not give what was asked for, in the few words of a report's line."""

from __future__ import annotations

import errno


def refusal(error: OSError | ValueError) -> str:
    """What the system says of a file or folder that it does not give: `permission denied`."""
    if isinstance(error, OSError) and error.errno in (errno.EACCES, errno.EPERM):
        return "permission denied"
    return (getattr(error, "strerror", None) or str(error)).lower()


def unread_file(error: OSError) -> str:
    """The reason of a file that the system refuses."""
    return f"the file cannot be read: {refusal(error)}"
