"""Files of a hub onto this machine: enough room, a broken download taken up where it stopped, hashes checked.

huggingface_hub transfers them; what it leaves of a broken transfer is where the next attempt goes on.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..errors import ModelError
from ..machine import installed_version
from .download_meter import DownloadMeter, size_text
from .hub_errors import UnreachableError, explain, is_final
from .hub_listing import HubFile, Reference
from .progress import Progress
from .room import disk_of
from .snapshot import Snapshot, content_matches
from .storage import CACHE_VARIABLE, cache_folder

# A connection that breaks is taken up again, as long as each attempt brings the file further.
_RETRY_AFTER_S = 1.0
# Room that a download leaves on the disk.
_SPARE_BYTES = 64 << 20


@dataclass(frozen=True, slots=True)
class Download:
    """From a hub, a URL, into the folder of a cache. `report` hears bytes, speed and time left.

    `export_bytes`: what is made of it afterwards in the cache of qvl-local, and must find room beside it.
    """

    endpoint: str
    cache: Path
    report: Progress
    export_bytes: int = 0

    def run(self, missing: Sequence[tuple[Snapshot, HubFile]]) -> None:
        """Fetch these files, and hold each against its promised hash.

        Raises:
            ModelError: one cannot be fetched, there is no room for all, or one arrives damaged.
        """
        self._check_space(missing)
        with _quiet_bars(), DownloadMeter(missing, self.report) as meter:
            for snapshot, file in missing:
                meter.at(snapshot.repository)
                self._fetch(snapshot, file)
                if not _is_sound(snapshot, file, meter):
                    _discard(snapshot, file)
                    self._fetch(snapshot, file)  # once more: a proxy or a disk may have failed once
                    if not _is_sound(snapshot, file, meter):
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
                if is_final(error) or got <= before:
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
        explained = explain(
            error, Reference(snapshot.repository, snapshot.commit), endpoint=self.endpoint, cache=self.cache
        )
        if not isinstance(explained, UnreachableError):
            return explained
        kept = f" {size_text(got)} of it are kept: the next attempt goes on from there." if got else ""
        return ModelError(
            f"{snapshot.repository}: {file.name} could not be downloaded: {explained}.{kept} "
            "Check the network and the disk, and try again."
        )

    def _check_space(self, missing: Sequence[tuple[Snapshot, HubFile]]) -> None:
        """Refuse a download that the disk cannot hold, before it begins."""
        bytes_needed = 0
        names = []
        for snapshot, file in missing:
            bytes_needed += file.size - _size_of(snapshot.blob(f"{file.digest}.incomplete"))
            names.append(snapshot.repository)
        disk, exports = disk_of(self.cache), disk_of(cache_folder())
        what = f"{' and '.join(dict.fromkeys(names))}: {size_text(bytes_needed)} are to be downloaded"
        if disk is not None and bytes_needed + _SPARE_BYTES > disk.free:
            raise ModelError(
                f"{what}, but {self.cache} has {size_text(disk.free)} free. Make room, or choose another "
                "disk: HF_HOME=/some/folder"
            )
        if exports is None or not self.export_bytes:
            return
        is_one = disk is not None and disk.device == exports.device
        if self.export_bytes + (bytes_needed if is_one else 0) + _SPARE_BYTES > exports.free:
            both = f" ({size_text(bytes_needed + self.export_bytes)} together)" if is_one else ""
            raise ModelError(
                f"{what}, and their export takes another {size_text(self.export_bytes)}{both}, but "
                f"{cache_folder()} has {size_text(exports.free)} free. Nothing was downloaded. Make room, or "
                f"choose another disk: HF_HOME=/some/folder for downloads, {CACHE_VARIABLE}=/some/folder for "
                "exports"
            )


def _is_sound(snapshot: Snapshot, file: HubFile, meter: DownloadMeter) -> bool:
    with meter.checking(file):
        return content_matches(snapshot.path / file.name, file.digest, progress=meter.checked)


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
