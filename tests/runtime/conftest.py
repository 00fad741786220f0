"""What tests of the runtime share: a maker of real photos and videos, and qvl-tiny as a bundle."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Colour = tuple[int, int, int]


class MediaMaker:
    """Writes media files of known content. Pictures are a colour with a texture that `seed` decides."""

    def pixels(
        self, colour: Colour = (180, 40, 40), *, size: tuple[int, int] = (160, 120), seed: int = 0
    ) -> NDArray[np.uint8]:
        """uint8 [h, w, 3] for a size of (width, height)."""
        width, height = size
        texture = np.random.default_rng(seed).integers(-20, 20, (height, width, 1))
        return np.clip(np.asarray(colour) + texture, 0, 255).astype(np.uint8)

    def photo(
        self,
        path: Path,
        colour: Colour = (180, 40, 40),
        *,
        size: tuple[int, int] = (160, 120),
        seed: int = 0,
        exif: Image.Exif | None = None,
    ) -> Path:
        """A photo in the format of its extension."""
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in {".heic", ".heif"}:
            from pillow_heif import register_heif_opener

            register_heif_opener()
        image = Image.fromarray(self.pixels(colour, size=size, seed=seed))
        if exif is None:
            image.save(path)
        else:
            image.save(path, exif=exif)
        return path

    def video(
        self,
        path: Path,
        scenes: Sequence[tuple[Colour, float]] = (((180, 40, 40), 3.0),),
        *,
        size: tuple[int, int] = (160, 120),
        fps: int = 12,
        codec: str | None = None,
        keyframe_every: int | None = None,
        metadata: dict[str, str] | None = None,
    ) -> Path:
        """A video of coloured scenes with a moving square, in the container of its extension."""
        path.parent.mkdir(parents=True, exist_ok=True)
        codecs = {".webm": "libvpx", ".avi": "mpeg4"}
        with av.open(str(path), "w") as container:
            container.metadata.update(metadata or {})
            stream = container.add_stream(codec or codecs.get(path.suffix, "libx264"), rate=fps)
            stream.width, stream.height = size
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "ultrafast", "deadline": "realtime", "cpu-used": "8"}
            if keyframe_every is not None:
                stream.codec_context.gop_size = keyframe_every
            count = 0
            for colour, seconds in scenes:
                still = self.pixels(colour, size=size, seed=count)
                for _ in range(round(seconds * fps)):
                    pixels = still.copy()
                    x = (4 * count) % (size[0] - 20)
                    pixels[40:60, x : x + 20] = 255
                    frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
                    frame.pts = count
                    frame.time_base = Fraction(1, fps)
                    container.mux(stream.encode(frame))
                    count += 1
            container.mux(stream.encode())
        return path

    def sound(self, path: Path, *, seconds: float = 0.5) -> Path:
        """A file of sound alone."""
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=44100)
            for start in range(0, round(44100 * seconds), 1024):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", layout="mono")
                frame.sample_rate = 44100
                frame.pts = start
                container.mux(stream.encode(frame))
            container.mux(stream.encode())
        return path


@pytest.fixture(scope="session")
def media() -> MediaMaker:
    return MediaMaker()


@pytest.fixture(scope="session")
def model_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where exported bundles of this test session lie."""
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def tiny_bundle(model_cache: Path) -> Iterator[str]:
    """The bundle folder of qvl-tiny, exported once; the cache is the session's own from here on."""
    from qvl_local.runtime.model.resolve import resolve

    before = os.environ.get("QVL_CACHE_DIR")
    os.environ["QVL_CACHE_DIR"] = str(model_cache)
    try:
        yield str(resolve("tiny").path)
    finally:
        if before is None:
            del os.environ["QVL_CACHE_DIR"]
        else:
            os.environ["QVL_CACHE_DIR"] = before
