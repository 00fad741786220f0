"""Checkpoints from a Hugging Face hub: found in its cache, or downloaded once, whole and checked.

    "owner/name@main"  -> Reference
    Reference          -> Snapshot     already in the cache, whole: no network at all
                       -> Listing      else the hub says which files there are, how large, with which hashes
                       -> space        enough room for what is missing
                       -> files        small ones first; a broken download goes on where it stopped
                       -> hashes       every file against what the hub promised

Downloads go through huggingface_hub, so its variables mean what they mean everywhere: HF_HOME, HF_HUB_CACHE
(where), HF_HUB_OFFLINE (never ask the network), HF_ENDPOINT (another hub), HF_TOKEN (who asks).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from ..errors import ModelError, ModelNotFoundError
from ..machine import installed_version
from .bundle import Role
from .download_meter import DownloadMeter, size_text
from .progress import Progress, no_progress
from .snapshot import (
    INDEX,
    WEIGHTS,
    Snapshot,
    content_matches,
    damaged,
    is_commit,
    lacking,
    snapshot_of,
)
from .storage import cache_folder, write_atomically

# Small files of a repository that a checkpoint needs; its weights are chosen apart.
_SMALL_FILES = ("*.json", "*.jinja", "merges.txt")
_SMALL_FOLDERS = ("additional_chat_templates/", "1_Pooling/")
_SHARD = re.compile(r"model-\d+-of-\d+\.safetensors")
_REFERENCE = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*)(?:@(?P<revision>[\w][\w./-]*))?")

# A connection that breaks is taken up again, as long as each attempt brings the file further.
_RETRY_AFTER_S = 1.0
# Room that a download leaves on the disk.
_SPARE_BYTES = 64 << 20
# A repository that was not there is asked for again after a day.
_ABSENT_FOR_S = 86_400


@dataclass(frozen=True, slots=True)
class Reference:
    """A repository, "owner/name", and the branch, tag or commit that is wanted (None: the copy at hand)."""

    repository: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Reference | None:
        """Read "owner/name" or "owner/name@revision"; None when it is neither."""
        match = _REFERENCE.fullmatch(text)
        if match is None or ".." in (match["revision"] or ""):
            return None
        return cls(match["name"], match["revision"])

    @property
    def may_move(self) -> bool:
        """Whether the hub must be asked what it means now: a branch or tag that was named."""
        return self.revision is not None and not is_commit(self.revision)

    def __str__(self) -> str:
        return self.repository if self.revision is None else f"{self.repository}@{self.revision}"


@dataclass(frozen=True, slots=True)
class HubFile:
    """A file as the hub lists it. `digest` names its blob: sha256 (64 digits), or git's sha1 (40 digits)."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True, slots=True)
class Listing:
    """The files of one commit that a checkpoint needs, in the order in which they are fetched."""

    repository: str
    commit: str
    files: tuple[HubFile, ...]


class _UnreachableError(ModelError):
    """The hub gave no answer: no network, or it is not to be asked."""


@dataclass(frozen=True, slots=True)
class Hub:
    """One hub and its cache on this machine. `endpoint` is a URL; `offline` forbids the network."""

    endpoint: str
    cache: Path
    offline: bool

    @classmethod
    def of_this_machine(cls) -> Hub:
        """The hub that huggingface_hub's own variables name."""
        from huggingface_hub import constants

        return cls(constants.ENDPOINT, Path(constants.HF_HUB_CACHE), bool(constants.HF_HUB_OFFLINE))

    def held(self, reference: Reference) -> Snapshot | None:
        """The snapshot in the cache, when it is whole. Never asks the network."""
        snapshot = snapshot_of(self.cache, reference.repository, reference.revision or "main")
        if snapshot is None or self._missing(snapshot):
            return None
        return snapshot

    def fetch(
        self, wanted: Mapping[Role, Reference], *, needed: Role, progress: Progress | None = None
    ) -> dict[Role, Snapshot]:
        """Snapshots of these repositories, whole and checked; downloads what is missing.

        Args:
            wanted: a model and, where its name suggests one, its sibling.
            needed: the one without which nothing works; the other is left out where it does not exist.
            progress: told a step, with bytes and time left, and its fraction done.

        Raises:
            ModelNotFoundError: no such repository or revision.
            ModelError: it cannot be downloaded, there is no room for it, or its content is damaged.
        """
        report = progress or no_progress
        found: dict[Role, Snapshot] = {}
        listings: dict[Role, Listing] = {}
        for role, reference in sorted(wanted.items(), key=lambda item: item[0] != needed):
            held = self.held(reference)
            if held is not None and not reference.may_move:
                found[role] = held
                continue
            try:
                listings[role] = self._list(reference, report, remember_absence=role != needed)
            except _UnreachableError as error:
                if held is not None:
                    found[role] = held
                elif role == needed:
                    raise self._not_here(reference, error) from error
            except ModelNotFoundError:
                if role == needed:
                    raise
        self._download(listings.values(), report)
        for role, listing in listings.items():
            found[role] = self._settle(wanted[role], listing)
        for role in found.keys() - listings.keys():
            self._check_held(found[role], report)
        return dict(sorted(found.items()))

    # What the hub has

    def _list(self, reference: Reference, report: Progress, *, remember_absence: bool) -> Listing:
        """Ask the hub which files there are."""
        from huggingface_hub import HfApi

        absent = _memory(reference.repository) / "absent"
        if self.offline:
            raise _UnreachableError("HF_HUB_OFFLINE is set")
        if remember_absence and reference.revision is None and _is_fresh(absent):
            raise ModelNotFoundError(f"{reference}: was not on the hub a short while ago.")
        report(f"asking the hub for {reference}", 0.0)
        api = HfApi(endpoint=self.endpoint, library_name="qvl-local", library_version=installed_version())
        try:
            info = api.model_info(reference.repository, revision=reference.revision, files_metadata=True)
        except Exception as error:  # the hub passes on whatever its HTTP library raises
            explained = self._explain(error, reference)
            if remember_absence and isinstance(explained, ModelNotFoundError):
                write_atomically(absent, "")
            raise explained from error
        files = [
            HubFile(
                name=sibling.rfilename,
                size=sibling.size or 0,
                digest=sibling.lfs.sha256 if sibling.lfs else sibling.blob_id or "",
            )
            for sibling in info.siblings or ()
        ]
        chosen = choose_files(files)
        if not info.sha or not any(file.name.endswith(".safetensors") for file in chosen):
            raise ModelNotFoundError(
                f"{reference}: holds no safetensors weights, so it is no checkpoint that can be used. "
                "Name a Qwen3-VL-Embedding or Qwen3-VL-Reranker repository."
            )
        return Listing(reference.repository, info.sha, tuple(chosen))

    def _explain(self, error: Exception, reference: Reference) -> ModelError:
        """What went wrong, and the way out."""
        from huggingface_hub import errors

        if isinstance(error, errors.GatedRepoError):
            return ModelError(
                f"{reference}: its owners ask for consent to their terms. Give it at "
                f"{self.endpoint}/{reference.repository}, then log in: hf auth login (or set HF_TOKEN)."
            )
        if isinstance(error, errors.RepositoryNotFoundError):
            return ModelNotFoundError(
                f"{reference}: neither a folder here nor a repository on the hub ({self.endpoint}), or one "
                "that asks for a login: hf auth login (or set HF_TOKEN)."
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return ModelNotFoundError(
                f"{reference}: the repository has no branch, tag or commit of that name. "
                f"See {self.endpoint}/{reference.repository}/commits/main"
            )
        status = getattr(getattr(error, "response", None), "status_code", None)
        if status is not None:
            return _UnreachableError(f"{self.endpoint} answered with status {status}")
        if _is_of_network(error):
            # What an HTTP library says of it is its own inside; it stays in the chain of causes.
            return _UnreachableError(f"cannot reach {self.endpoint} (no network?)")
        first_line = (str(error).strip().splitlines() or [repr(error)])[0]
        return _UnreachableError(first_line.removesuffix("."))

    def _not_here(self, reference: Reference, error: _UnreachableError) -> ModelError:
        """Neither in the cache nor to be had."""
        snapshot = snapshot_of(self.cache, reference.repository, reference.revision or "main")
        missing = [] if snapshot is None else self._missing(snapshot)
        state = (
            f"is only partly downloaded ({', '.join(missing)} missing)" if missing else "is not downloaded"
        )
        if self.offline:
            return ModelError(
                f"{reference}: {state}, and HF_HUB_OFFLINE forbids downloads. Unset it, or bring the files "
                f"into {self.cache} from another machine; `tiny` needs no download."
            )
        return ModelError(
            f"{reference}: {state}, and cannot be downloaded now: {error}. "
            "Check the network and try again; `tiny` needs no download."
        )

    # Downloading

    def _download(self, listings: Iterable[Listing], report: Progress) -> None:
        """Fetch what is missing of all of them, and hold it against the promised hashes."""
        missing = [
            (snapshot, file)
            for listing in listings
            for snapshot in [self._snapshot(listing)]
            for file in listing.files
            if not (snapshot.path / file.name).exists()
        ]
        if not missing:
            return
        self._check_space(missing)
        with _quiet_bars(), DownloadMeter(missing, report) as meter:
            for snapshot, file in missing:
                meter.at(snapshot.repository)
                self._fetch(snapshot, file)
                if not self._is_sound(snapshot, file, meter):
                    _discard(snapshot, file)
                    self._fetch(snapshot, file)  # once more: a proxy or a disk may have failed once
                    if not self._is_sound(snapshot, file, meter):
                        _discard(snapshot, file)
                        raise ModelError(
                            f"{snapshot.repository}: {file.name} arrived twice with other content than the "
                            "hub promises. It was thrown away. Try again later, or over another network."
                        )

    def _fetch(self, snapshot: Snapshot, file: HubFile) -> None:
        """One file, taken up again after interruptions as long as that brings it further."""
        partial = snapshot.blob(f"{file.digest}.incomplete")
        if _size_of(partial) > file.size:
            partial.unlink()  # of another content: going on from there would never end well
        got = _size_of(partial)
        while True:
            try:
                self._fetch_once(snapshot, file)
                return
            except Exception as error:
                before, got = got, _size_of(partial)
                if _is_final(error) or got <= before:
                    raise self._broken_off(error, snapshot, file, got) from error
            time.sleep(_RETRY_AFTER_S)

    def _fetch_once(self, snapshot: Snapshot, file: HubFile) -> None:
        from huggingface_hub import hf_hub_download

        hf_hub_download(
            snapshot.repository,
            file.name,
            revision=snapshot.commit,
            cache_dir=self.cache,
            endpoint=self.endpoint,
            library_name="qvl-local",
            library_version=installed_version(),
        )

    def _broken_off(self, error: Exception, snapshot: Snapshot, file: HubFile, got: int) -> ModelError:
        explained = self._explain(error, Reference(snapshot.repository, snapshot.commit))
        if not isinstance(explained, _UnreachableError):
            return explained
        kept = f" {size_text(got)} of it are kept: the next attempt goes on from there." if got else ""
        return ModelError(
            f"{snapshot.repository}: {file.name} could not be downloaded: {explained}.{kept} "
            "Check the network and the disk, and try again."
        )

    def _check_space(self, missing: Iterable[tuple[Snapshot, HubFile]]) -> None:
        """Refuse a download that the disk cannot hold, before it begins."""
        bytes_needed = 0
        names = []
        for snapshot, file in missing:
            bytes_needed += file.size - _size_of(snapshot.blob(f"{file.digest}.incomplete"))
            names.append(snapshot.repository)
        place = next(folder for folder in (self.cache, *self.cache.absolute().parents) if folder.is_dir())
        free = shutil.disk_usage(place).free
        if bytes_needed + _SPARE_BYTES > free:
            raise ModelError(
                f"{' and '.join(dict.fromkeys(names))}: {size_text(bytes_needed)} are to be downloaded, but "
                f"{self.cache} has {size_text(free)} free. Make room, or choose another disk: "
                "HF_HOME=/some/folder"
            )

    # What is in the cache

    def _snapshot(self, listing: Listing) -> Snapshot:
        root = self.cache / f"models--{listing.repository.replace('/', '--')}"
        return Snapshot(root / "snapshots" / listing.commit, listing.repository, listing.commit)

    def _missing(self, snapshot: Snapshot) -> list[str]:
        """Files that are not here: of the hub's listing when it was seen, else of what is needed at least."""
        listing = _remembered_listing(snapshot)
        if listing is None:
            return lacking(snapshot.path)
        return [file.name for file in listing.files if not (snapshot.path / file.name).is_file()]

    def _is_sound(self, snapshot: Snapshot, file: HubFile, meter: DownloadMeter) -> bool:
        with meter.checking(file):
            return content_matches(snapshot.path / file.name, file.digest, progress=meter.checked)

    def _settle(self, reference: Reference, listing: Listing) -> Snapshot:
        """Remember what was downloaded: as the state of its branch, and that it is whole."""
        snapshot = self._snapshot(listing)
        if not is_commit(reference.revision or "main"):
            ref = snapshot.path.parents[1] / "refs" / (reference.revision or "main")
            with suppress(OSError):  # without it, the next run asks the hub again
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(listing.commit, encoding="ascii")
        write_atomically(_memory(listing.repository) / f"{listing.commit}.json", json.dumps(asdict(listing)))
        absent = lacking(snapshot.path)
        if absent:
            raise ModelNotFoundError(
                f"{reference}: its repository lacks {', '.join(absent)}, so it is no checkpoint that can be "
                "used. Name a Qwen3-VL-Embedding or Qwen3-VL-Reranker repository."
            )
        return snapshot

    def _check_held(self, snapshot: Snapshot, report: Progress) -> None:
        """Hold a copy that was there already against the names of its blobs; done once for each file."""
        read = 0

        def told(count: int) -> None:
            nonlocal read
            read += count
            report(f"checking {snapshot.repository}: {size_text(read)}", 0.0)

        harmed = damaged(snapshot, progress=told)
        if harmed:
            raise ModelError(
                f"{snapshot.path}: {', '.join(harmed)} is damaged: its content is not what its name in the "
                "cache promises. Delete it and try again with a network: it is downloaded anew."
            )


def choose_files(files: Iterable[HubFile]) -> list[HubFile]:
    """The files of a repository that a checkpoint needs: small ones first, then its weights, shards in order.

    Where weights are published both whole and in shards, the whole file is taken.
    """
    by_name = {file.name: file for file in files}
    small = [name for name in by_name if _is_small(name)]
    tensors = sorted(name for name in by_name if "/" not in name and name.endswith(".safetensors"))
    weights = [name for name in tensors if _SHARD.fullmatch(name)] or tensors
    if WEIGHTS in tensors:
        weights, small = [WEIGHTS], [name for name in small if name != INDEX]
    return [by_name[name] for name in [*sorted(small), *weights]]


def _is_small(name: str) -> bool:
    if "/" in name:
        return name.startswith(_SMALL_FOLDERS)
    return any(fnmatchcase(name, pattern) for pattern in _SMALL_FILES)


def _memory(repository: str) -> Path:
    """Where it is remembered what the hub said about a repository."""
    return cache_folder() / "hub" / repository.replace("/", "--")


def _remembered_listing(snapshot: Snapshot) -> Listing | None:
    file = _memory(snapshot.repository) / f"{snapshot.commit}.json"
    try:
        raw: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        return Listing(**raw | {"files": tuple(HubFile(**entry) for entry in raw["files"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _is_fresh(file: Path) -> bool:
    with suppress(OSError):
        return time.time() - file.stat().st_mtime < _ABSENT_FOR_S
    return False


def _is_of_network(error: Exception) -> bool:
    """Whether no answer came, or only a part: as huggingface_hub, its HTTP library or Python say it."""
    from huggingface_hub import errors

    library = type(error).__module__.partition(".")[0]
    return isinstance(error, errors.LocalEntryNotFoundError | ConnectionError | TimeoutError) or (
        library in ("requests", "urllib3", "httpx", "httpcore")
    )


def _is_final(error: Exception) -> bool:
    """Whether trying again cannot help: the hub answered with a refusal, or the disk failed."""
    from huggingface_hub import errors

    if isinstance(error, errors.LocalEntryNotFoundError):  # no answer at all
        return False
    return isinstance(error, errors.HfHubHTTPError) or getattr(error, "errno", None) is not None


def _size_of(file: Path) -> int:
    return file.stat().st_size if file.is_file() else 0


def _discard(snapshot: Snapshot, file: HubFile) -> None:
    """Throw a damaged file away, link and content."""
    for path in (snapshot.path / file.name, snapshot.blob(file.digest)):
        path.unlink(missing_ok=True)


@contextmanager
def _quiet_bars() -> Iterator[None]:
    """Keep huggingface_hub from drawing bars of its own over ours, unless its variable asks for them."""
    from huggingface_hub import constants
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    if constants.HF_HUB_DISABLE_PROGRESS_BARS is not None or are_progress_bars_disabled():
        yield
        return
    names = ("huggingface_hub.http_get", "huggingface_hub.xet_get")
    for name in names:
        disable_progress_bars(name)
    try:
        yield
    finally:
        for name in names:
            enable_progress_bars(name)
