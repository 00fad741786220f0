"""Every error that qvl-local raises on purpose.

    QvlError
    ├── InputError               what the caller asked for makes no sense (exit status 2)
    │   └── PartError            one named part of a request is wrong: `input[3].image`
    ├── MediaError               one photo or video cannot be used; carries its path and reason
    │   ├── MediaAccessError     the system does not let us read it; that may change without the file
    │   └── MediaLimitError      it is over a size, time or memory limit
    ├── ModelError
    │   ├── ModelNotFoundError   no such name, folder or repository
    │   ├── CheckpointError      a Hugging Face checkpoint folder is unusable
    │   ├── BundleError          a bundle is incomplete, damaged, or of an unknown format
    │   ├── ParityError          an exported graph does not reproduce the checkpoint
    │   ├── ModelMemoryError     a run, or the weights, do not fit into memory; a smaller batch may
    │   └── ModelLoadingError    it is still being fetched or exported; later it can be used
    ├── LibraryError
    │   ├── LibraryVersionError  made by a newer qvl-local
    │   ├── LibraryBusyError     another process is indexing into it
    │   └── LibraryStorageError  disk full, read-only, or not a library
    ├── OutputError              results cannot be written where standard output leads
    ├── StoppedError             the caller's `stop` was set before there was anything to return
    └── MissingExtraError        an optional dependency is not installed

A message says what happened, to which file, and what to do next.
"""

from __future__ import annotations

from pathlib import Path


class QvlError(Exception):
    """Base of every error raised on purpose."""


class InputError(QvlError):
    """The request itself is wrong: an empty query, a path that does not exist, an unknown option value."""


class PartError(InputError):
    """One part of a request is wrong. `part` names it as its sender would (`input[3].image`)."""

    def __init__(self, part: str, reason: str) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason


class MediaError(QvlError):
    """One media file cannot be used. `path` names it, `reason` says why in one line."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type[MediaError], tuple[str, str]]:
        # Crosses process borders: decoding happens in workers.
        return type(self), (self.path, self.reason)


class MediaAccessError(MediaError):
    """The system refuses a media file (no permission, unplugged): nothing is known about its content."""


class MediaLimitError(MediaError):
    """A media file is over a limit of pixels, duration, time or memory."""


class ModelError(QvlError):
    """A model cannot be found, read, exported or run."""


class ModelNotFoundError(ModelError):
    """No model of that name, folder or repository."""


class CheckpointError(ModelError):
    """A Hugging Face checkpoint folder lacks something or holds something unknown."""


class BundleError(ModelError):
    """A bundle is incomplete, damaged, or written by a newer version."""


class ParityError(ModelError):
    """An exported graph does not reproduce the checkpoint within its tolerance."""


class ModelMemoryError(ModelError):
    """Memory ran out, on the machine or on the GPU. A smaller batch may fit; the encoder tries it itself."""


class ModelLoadingError(ModelError):
    """A model is being fetched or exported for another caller; it can be used when that is done."""


class LibraryError(QvlError):
    """A library cannot be opened, read or written."""


class LibraryVersionError(LibraryError):
    """The library was made by a newer version of qvl-local."""


class LibraryBusyError(LibraryError):
    """Another process holds the library for indexing."""


class LibraryStorageError(LibraryError):
    """The file system refuses: disk full, read-only, no permission, or the folder is something else."""


class OutputError(QvlError):
    """Results cannot be written where standard output leads: a full disk, a closed file."""


class StoppedError(QvlError):
    """What was asked for ended early because the caller wished so; nothing was left half done."""


class MissingExtraError(QvlError):
    """An optional dependency is not installed; the message names the `pip install` command."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(f"{package} is not installed. Install it with: pip install 'qvl-local[{extra}]'")
