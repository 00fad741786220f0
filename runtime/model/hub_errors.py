"""What can go wrong with a hub, as errors that say the way out."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError, ModelNotFoundError

if TYPE_CHECKING:
    from .hub_listing import Reference

_OF_THE_DISK = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.ENOTDIR, errno.EIO)


class UnreachableError(ModelError):
    """The hub gave no answer: no network, or it is not to be asked."""


def explain(error: Exception, reference: Reference, *, endpoint: str, cache: Path) -> ModelError:
    """What went wrong, and the way out."""
    from huggingface_hub import errors

    refused = _refusal_of_the_system(error)
    if refused is not None:
        return ModelError(
            f"{reference}: {cache} cannot be written ({refused.strerror}). Get access or make room there, or "
            "choose another folder: HF_HOME=/some/folder"
        )
    if isinstance(error, errors.GatedRepoError):
        return ModelError(
            f"{reference}: its owners ask for consent to their terms. Give it at "
            f"{endpoint}/{reference.repository}, then log in: hf auth login (or set HF_TOKEN)."
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return ModelNotFoundError(
            f"{reference}: neither a folder here nor a repository on the hub ({endpoint}), or one "
            "that asks for a login: hf auth login (or set HF_TOKEN)."
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return ModelNotFoundError(
            f"{reference}: the repository has no branch, tag or commit of that name. "
            f"See {endpoint}/{reference.repository}/commits/main"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status is not None:
        return UnreachableError(f"{endpoint} answered with status {status}")
    if _is_of_network(error):
        # What an HTTP library says of it is its own inside; it stays in the chain of causes.
        return UnreachableError(f"cannot reach {endpoint} (no network?)")
    first_line = (str(error).strip().splitlines() or [repr(error)])[0]
    return UnreachableError(first_line.removesuffix("."))


def _is_of_network(error: Exception) -> bool:
    """Whether no answer came, or only a part: as huggingface_hub, its HTTP library or Python say it."""
    from huggingface_hub import errors

    library = type(error).__module__.partition(".")[0]
    return isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError) or (
        library in ("requests", "urllib3", "httpx", "httpcore")
    )


def is_final(error: Exception) -> bool:
    """Whether trying again cannot help: the hub answered with a refusal, or the disk failed."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # no answer at all
        return False
    return isinstance(error, errors.HfHubHTTPError) or getattr(error, "errno", None) is not None


def _refusal_of_the_system(error: Exception) -> OSError | None:
    """The error of the disk or its permissions behind an error; those of the network are OSErrors, too."""
    if isinstance(error, OSError) and error.errno in _OF_THE_DISK:
        return error
    return None
