"""Checkpoints from a Hugging Face hub: found in its cache, or downloaded once, whole and checked.

    "owner/name@main"  -> Reference
    Reference          -> Snapshot     already in the cache, whole: no network at all
                       -> Listing      else the hub says which files there are, how large, with which hashes
                       -> Download     room for what is missing, files one by one, every hash as promised

Downloads go through huggingface_hub, so its variables mean what they mean everywhere: HF_HOME, HF_HUB_CACHE
(where), HF_HUB_OFFLINE (never ask the network), HF_ENDPOINT (another hub), HF_TOKEN (who asks).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError, ModelNotFoundError
from ..machine import installed_version
from .bundle import Role
from .download_meter import size_text
from .hub_download import Download
from .hub_errors import UnreachableError, explain
from .hub_listing import (
    HubFile,
    Listing,
    Reference,
    choose_files,
    remember_absence,
    remember_listing,
    remembered_listing,
    was_absent,
)
from .progress import Progress, no_progress
from .snapshot import Snapshot, damaged, is_commit, lacking, snapshot_of


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
        self,
        wanted: Mapping[Role, Reference],
        *,
        needed: Role,
        progress: Progress | None = None,
        export_bytes: Callable[[], int] | None = None,
    ) -> dict[Role, Snapshot]:
        """Snapshots of these repositories, whole and checked; downloads what is missing.

        Args:
            wanted: a model and, where its name suggests one, its sibling.
            needed: the one without which nothing works; the other is left out where it does not exist.
            progress: told a step, with bytes and time left, and its fraction done.
            export_bytes: asked before a download what its export will take, for which there must be room.

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
                listings[role] = self._list(reference, report, is_guess=role != needed)
            except UnreachableError as error:
                if held is not None:
                    found[role] = held
                elif role == needed:
                    raise self._not_here(reference, error) from error
            except ModelNotFoundError:
                if role == needed:
                    raise
        missing = [
            (snapshot, file)
            for listing in listings.values()
            for snapshot in [self._snapshot(listing)]
            for file in listing.files
            if not (snapshot.path / file.name).exists()
        ]
        if missing:
            export = 0 if export_bytes is None else export_bytes()
            Download(self.endpoint, self.cache, report, export).run(missing)
        for role, listing in listings.items():
            found[role] = self._settle(wanted[role], listing)
        for role in found.keys() - listings.keys():
            self._check_held(found[role], report)
        return dict(sorted(found.items()))

    # What the hub has

    def _list(self, reference: Reference, report: Progress, *, is_guess: bool) -> Listing:
        """Ask the hub which files there are."""
        from huggingface_hub import HfApi

        if self.offline:
            raise UnreachableError("HF_HUB_OFFLINE is set")
        if is_guess and reference.revision is None and was_absent(reference.repository):
            raise ModelNotFoundError(f"{reference}: was not on the hub a short while ago.")
        report(f"asking the hub for {reference}", 0.0)
        api = HfApi(endpoint=self.endpoint, library_name="qvl-local", library_version=installed_version())
        try:
            info = api.model_info(reference.repository, revision=reference.revision, files_metadata=True)
        except Exception as error:  # the hub passes on whatever its HTTP library raises
            explained = explain(error, reference, endpoint=self.endpoint, cache=self.cache)
            if is_guess and isinstance(explained, ModelNotFoundError):
                remember_absence(reference.repository)
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

    def _not_here(self, reference: Reference, error: UnreachableError) -> ModelError:
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

    # What is in the cache

    def _snapshot(self, listing: Listing) -> Snapshot:
        root = self.cache / f"models--{listing.repository.replace('/', '--')}"
        return Snapshot(root / "snapshots" / listing.commit, listing.repository, listing.commit)

    def _missing(self, snapshot: Snapshot) -> list[str]:
        """Files that are not here: of the hub's listing when it was seen, else of what is needed at least."""
        listing = remembered_listing(snapshot)
        if listing is None:
            return lacking(snapshot.path)
        return [file.name for file in listing.files if not (snapshot.path / file.name).is_file()]

    def _settle(self, reference: Reference, listing: Listing) -> Snapshot:
        """Remember what was downloaded: as the state of its branch, and that it is whole."""
        snapshot = self._snapshot(listing)
        if not is_commit(reference.revision or "main"):
            ref = snapshot.path.parents[1] / "refs" / (reference.revision or "main")
            with suppress(OSError):  # without it, the next run asks the hub again
                ref.parent.mkdir(parents=True, exist_ok=True)
                ref.write_text(listing.commit, encoding="ascii")
        remember_listing(listing)
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
