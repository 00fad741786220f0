"""How far a download is: bytes, speed and time left, told twice a second while another thread downloads.

Looks at the files on the disk, so it works whatever way huggingface_hub transfers them. Whoever listens may
stop the download by raising, also in the middle of a file.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from .progress import Progress

if TYPE_CHECKING:
    from .hub_listing import HubFile
    from .snapshot import Snapshot

_EVERY_S = 0.5
# Before that a speed is a guess.
_ESTIMATE_AFTER_S = 2.0


class DownloadMeter:
    """Reports while it is entered. `files` are all that are to come, with the snapshots they belong to."""

    def __init__(self, files: Sequence[tuple[Snapshot, HubFile]], report: Progress) -> None:
        self._files = files
        self._report = report
        self._total = sum(file.size for _, file in files)
        self._label = "downloading"
        self._checking: HubFile | None = None
        self._checked_bytes = 0
        self._start = time.monotonic()
        self._had = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="download-meter", daemon=True)
        self._trouble: Exception | None = None
        self._downloader: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._downloader = threading.current_thread()
        self._had = self._present()
        self._start = time.monotonic()
        self._tell()
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        try:
            self._stop.set()
            self._thread.join()
            time.sleep(0)  # a last chance for an interruption of ours to arrive
        except KeyboardInterrupt:
            if self._trouble is None:
                raise
        if kind is None or (self._trouble is not None and issubclass(kind, KeyboardInterrupt)):
            self._raise_trouble()
        if kind is None:
            self._tell()

    def at(self, repository: str) -> None:
        """Say which repository the coming files belong to."""
        self._raise_trouble()
        self._label = f"downloading {repository}"

    @contextmanager
    def checking(self, file: HubFile) -> Iterator[None]:
        """While a file's content is held against its hash."""
        self._checking, self._checked_bytes = file, 0
        try:
            yield
        finally:
            self._checking = None

    def checked(self, count: int) -> None:
        """So many more bytes of the file were read."""
        self._checked_bytes += count

    def _watch(self) -> None:
        while not self._stop.wait(_EVERY_S):
            try:
                self._tell()
            except Exception as error:  # of whoever listens; raised where the listener expects it
                self._trouble = error
                if self._downloader is threading.main_thread():
                    _interrupt_main()
                return

    def _raise_trouble(self) -> None:
        if self._trouble is not None:
            raise self._trouble

    def _tell(self) -> None:
        present, file = self._present(), self._checking
        fraction = min(present / self._total, 1.0) if self._total else 1.0
        if file is not None and self._checked_bytes:
            read = f"{size_text(self._checked_bytes)} of {size_text(file.size)}"
            self._report(f"checking {file.name}: {read}", fraction)
            return
        parts = [f"{size_text(present)} of {size_text(self._total)}"]
        spent, came = time.monotonic() - self._start, present - self._had
        if spent >= _ESTIMATE_AFTER_S and came > 0:
            speed = came / spent
            parts += [f"{size_text(speed)}/s", f"{time_text((self._total - present) / speed)} left"]
        self._report(f"{self._label}: {', '.join(parts)}", fraction)

    def _present(self) -> int:
        """Bytes of the files that are on the disk, finished or begun."""
        total = 0
        for snapshot, file in self._files:
            if (snapshot.path / file.name).exists():
                total += file.size
                continue
            try:
                total += min(snapshot.blob(f"{file.digest}.incomplete").stat().st_size, file.size)
            except OSError:  # not begun, or just being moved to its place
                continue
        return total


def _interrupt_main() -> None:
    """End what the main thread waits for, as Ctrl-C does. Elsewhere the next file's turn ends a download."""
    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        return  # the application's own meaning of Ctrl-C is left alone
    main = threading.main_thread().ident
    if main is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main, signal.SIGINT)


def size_text(count: float) -> str:
    """Bytes in decimal units, as disks are sold: 812 B, 3.4 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} B" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def time_text(seconds: float) -> str:
    """About how long: 40 s, 12 min, 3 h 20 min."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60:02} min"
