"""What the library's tests share: a maker of vectors and media rows."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from qvl_local.runtime.library.records import (
    EncodedSegment,
    FailedMedia,
    FoundFile,
    IndexedMedia,
    MediaInfo,
    SpaceIdentity,
)
from qvl_local.runtime.library.store import Store

DIMS = 64


@dataclass
class Maker:
    """Makes rows for a store without any file or model behind them."""

    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(7))

    def identity(self, *, dims: int = DIMS, precision: str = "fp32", revision: str = "r1") -> SpaceIdentity:
        return SpaceIdentity("tiny", revision, precision, dims, "384 tokens", "v1")

    def vectors(self, count: int, dims: int = DIMS) -> NDArray[np.float32]:
        """float32 [count, dims], unit rows in no particular arrangement."""
        return unit(self.rng.standard_normal((count, dims), dtype=np.float32))

    def clustered(self, count: int, dims: int) -> NDArray[np.float32]:
        """float32 [count, dims], unit rows as of a model: a common part, topics, a falling spectrum."""
        spectrum = (1 + np.arange(dims, dtype=np.float32) / 32) ** -0.4
        topics = self.rng.standard_normal((max(1, count // 100), dims), dtype=np.float32)
        common = self.rng.standard_normal(dims, dtype=np.float32)
        own = self.rng.standard_normal((count, dims), dtype=np.float32)
        rows = topics[self.rng.integers(0, len(topics), count)]
        return unit((0.55 * common + 0.55 * rows + 0.6 * own) * spectrum)

    def file(self, folder_id: int, name: str, *, size: int = 100, mtime_ns: int = 1) -> FoundFile:
        return FoundFile(folder_id, name, size, mtime_ns)

    def photo(
        self,
        folder_id: int,
        name: str,
        vector: NDArray[np.float32] | None = None,
        *,
        content: str | None = None,
        taken_at: datetime | None = None,
        camera: str | None = None,
        mtime_ns: int = 1,
    ) -> IndexedMedia:
        vector = self.vectors(1)[0] if vector is None else vector
        info = MediaInfo("photo", 4000, 3000, taken_at=taken_at, camera=camera)
        file = self.file(folder_id, name, mtime_ns=mtime_ns)
        return IndexedMedia(file, content_hash(content or name), info, (EncodedSegment(0, 0, vector),))

    def video(
        self,
        folder_id: int,
        name: str,
        vectors: Sequence[NDArray[np.float32]],
        *,
        taken_at: datetime | None = None,
    ) -> IndexedMedia:
        info = MediaInfo("video", 1920, 1080, taken_at=taken_at, duration_s=2.0 * len(vectors))
        segments = tuple(
            EncodedSegment(2000 * i, 2000 * i + 2000, vector) for i, vector in enumerate(vectors)
        )
        return IndexedMedia(self.file(folder_id, name), content_hash(name), info, segments)

    def failed(self, folder_id: int, name: str, reason: str = "truncated") -> FailedMedia:
        return FailedMedia(self.file(folder_id, name), content_hash(name), reason)


def unit(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def content_hash(text: str) -> bytes:
    return sha256(text.encode("utf-8", "surrogateescape")).digest()


@pytest.fixture(scope="session")
def maker() -> type[Maker]:
    """For fixtures that live longer than a test."""
    return Maker


@pytest.fixture
def make() -> Maker:
    return Maker()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Where a test's library lies; nothing is there yet."""
    return tmp_path / "library"


@pytest.fixture
def store(home: Path) -> Iterator[Store]:
    """A new library, open for writing."""
    with Store.open(home, mode="write") as store:
        yield store


@pytest.fixture
def smaller_pictures() -> Callable[[str, Path], Path]:
    """Makes a copy of a bundle that looks at smaller pictures, and so is another model for a library."""

    def copied(bundle: str, folder: Path) -> Path:
        shutil.copytree(bundle, folder)
        pixels = folder / "preprocessor_config.json"
        pixels.write_text(pixels.read_text(encoding="utf-8").replace("16384", "12288"), encoding="utf-8")
        return folder

    return copied
