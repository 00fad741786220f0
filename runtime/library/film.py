"""Videos: looking through a film a few times a second and handing on its scenes.

Decodes from front to back, once. Damage costs the packets that it hits: what can be shown is indexed, and
only a film of which not one frame can be decoded is an error. Runs inside a decoding process.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import TYPE_CHECKING, BinaryIO, Literal

import av
import av.error
import numpy as np
from av.stream import Disposition
from numpy.typing import NDArray
from PIL import Image

from ..damage import damage
from ..errors import MediaError, MediaLimitError
from ..model.video import NO_DECODER, VideoFrames, decoded_frames, fit_frames, has_decoder
from .decode import DecodeTask, Description, Piece
from .formats import Format
from .probe import describe_video
from .scenes import Look, Scene, cut_scenes
from .thumbnails import THUMBNAIL_SIDE, make_strip, make_thumbnail

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

_READ_BYTES = 2**18
_SHORT_S = 30.0
_LOOKS_SHORT, _LOOKS = 8.0, 4.0  # looks a second, in films up to `_SHORT_S` and beyond
_DENSE_KEYS_S = 1.05


def decode_film(
    file: BinaryIO, form: Format, task: DecodeTask, beat: Callable[[], None]
) -> Iterator[Piece | Description]:
    """Decode a video: one piece a scene, then the description. `beat` is called at every look.

    Raises:
        MediaError: damaged, without pictures, or without one that can be decoded.
        MediaLimitError: its frames are too large, its scenes too many, or decoding it is too slow.
    """
    try:
        # An explicit demuxer and an open file: no guessing, no playlists, and nothing else can be opened.
        with av.open(
            file,
            mode="r",
            format=form.opener,
            options={"protocol_whitelist": "none"},
            metadata_errors="replace",
            buffer_size=_READ_BYTES,
        ) as container:
            yield from _decode(container, task, beat)
    except MemoryError:  # FFmpeg's own is an FFmpegError as well, and the film is not at fault
        raise
    except av.error.FFmpegError as error:
        raise MediaError(task.path, damage(task.path, error, what="video")) from error


def _decode(
    container: InputContainer, task: DecodeTask, beat: Callable[[], None]
) -> Iterator[Piece | Description]:
    stream = _picture_stream(container, task)
    reader = _Reader(container, stream, task)
    duration_s = _duration_s(container, stream)
    duration_ms = None if duration_s is None else round(duration_s * 1000)
    cover: NDArray[np.uint8] | None = None
    end_ms = 0
    looks = reader.looks(duration_s, beat)
    for count, scene in enumerate(
        cut_scenes(looks, duration_ms=duration_ms, settings=task.scenes, budget=task.budget)
    ):
        if count >= task.limits.scenes:
            raise MediaLimitError(task.path, f"it has more than {task.limits.scenes} scenes")
        if cover is None:
            cover = max((look.pixels for look in scene.looks), key=_liveliness)
        yield _piece(scene, task)
        end_ms = scene.t1_ms
    if cover is None:
        raise MediaError(task.path, damage(task.path, what="video"))
    yield Description(
        describe_video(
            {**stream.metadata, **container.metadata},
            width=reader.width,
            height=reader.height,
            duration_s=duration_s or end_ms / 1000,
        ),
        make_thumbnail(Image.fromarray(cover)),
    )


def _picture_stream(container: InputContainer, task: DecodeTask) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        if not container.streams.audio:
            raise MediaError(task.path, damage(task.path, what="video"))
        raise MediaError(task.path, "the file holds only sound, and no pictures to search")
    stream = streams[0]
    if not has_decoder(stream):
        raise MediaError(task.path, NO_DECODER)
    if stream.width * stream.height > task.limits.frame_pixels:
        raise MediaLimitError(
            task.path,
            f"frames of {stream.width}x{stream.height} are over the limit of "
            f"{task.limits.frame_pixels // 10**6} million pixels",
        )
    # Files are decoded side by side; threads within one multiply its memory.
    stream.codec_context.thread_count = 2
    stream.thread_type = "AUTO"
    return stream


class _Reader:
    """Frames of a film a few times a second, upright and small.

    `width`, `height`: as displayed, once read.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, task: DecodeTask) -> None:
        self.width = stream.width
        self.height = stream.height
        self._container = container
        self._stream = stream
        self._task = task
        # Twice the pixels that a frame of a full scene gets: a scene keeps dozens of them.
        self._area = 2 * task.budget.video_max_pixels // task.budget.max_frames

    def looks(self, duration_s: float | None, beat: Callable[[], None]) -> Iterator[Look]:
        """Decode front to back and yield a look every 1/8 s in short films, every 1/4 s in longer ones."""
        is_short = duration_s is not None and duration_s <= _SHORT_S
        step_ms = 1000 / (_LOOKS_SHORT if is_short else _LOOKS)
        if not is_short:
            self._stream.codec_context.skip_frame = self._skippable()
        start_s = float((self._stream.start_time or 0) * (self._stream.time_base or 0))
        rate = float(self._stream.average_rate or self._stream.guessed_rate or 25)
        last_ms = -step_ms
        count = 0
        began = time.perf_counter()
        for index, frame in enumerate(decoded_frames(self._container, self._stream)):
            # Raw streams carry no times.
            at_s = index / rate if frame.time is None else frame.time - start_s
            at_ms = max(round(at_s * 1000), 0)
            if at_ms - last_ms >= step_ms * 0.95:
                look = Look(at_ms, self._pixels(frame))
                waiting = time.perf_counter()
                yield look
                # Only our own time counts, not that in which somebody digests the look.
                began += time.perf_counter() - waiting
                last_ms = at_ms
                count += 1
                beat()
            self._check_pace(time.perf_counter() - began, count * step_ms / 1000)

    def _check_pace(self, spent_s: float, seen_s: float) -> None:
        limits = self._task.limits
        if spent_s > limits.film_s + limits.film_pace * seen_s:
            raise MediaLimitError(
                self._task.path,
                f"decoding {seen_s:.0f} s of it took {spent_s:.0f} s, which is over the limit",
            )

    def _skippable(self) -> Literal["NONKEY", "NONREF", "DEFAULT"]:
        """Frames that need not be decoded: all but key frames where those are as dense as the model looks."""
        stream = self._stream
        keys = [e.timestamp for e in stream.index_entries if e.is_keyframe]
        if len(keys) > 1 and stream.time_base:
            gap_s = float(max(b - a for a, b in pairwise(keys)) * stream.time_base)
            if 0 < gap_s * max(self._task.budget.fps, 1.0) <= _DENSE_KEYS_S:
                return "NONKEY"
        return "NONREF" if float(stream.average_rate or 0) >= 20 else "DEFAULT"

    def _pixels(self, frame: VideoFrame) -> NDArray[np.uint8]:
        """A frame as displayed: square pixels, upright, RGB [h, w, 3], shrunk to what scenes need."""
        if frame.width * frame.height > self._task.limits.frame_pixels:
            raise MediaLimitError(self._task.path, f"a frame of {frame.width}x{frame.height} is too large")
        aspect = float(self._stream.sample_aspect_ratio or 1) or 1.0
        width = max(round(frame.width * aspect), 1) if 0.1 < aspect < 10 else frame.width
        height = frame.height
        scale = min(1.0, max((self._area / (width * height)) ** 0.5, THUMBNAIL_SIDE / max(width, height)))
        small = frame.reformat(
            width=max(round(width * scale), 1),
            height=max(round(height * scale), 1),
            format="rgb24",
            interpolation="BICUBIC",
        )
        turns = round(frame.rotation / 90) % 4
        self.width, self.height = (height, width) if turns % 2 else (width, height)
        pixels = np.rot90(small.to_ndarray(), turns)
        return np.ascontiguousarray(pixels, dtype=np.uint8)


def _piece(scene: Scene, task: DecodeTask) -> Piece:
    first = scene.looks[0].pixels
    # A stream may change its size midway; the scene keeps that of its first frame.
    looks = [look for look in scene.looks if look.pixels.shape == first.shape]
    frames = np.stack([look.pixels for look in looks])
    times_s = np.array([(look.t_ms - scene.t0_ms) / 1000 for look in looks])
    fitted = fit_frames(VideoFrames(frames=frames, times_s=times_s), task.budget)
    return Piece(scene.t0_ms, scene.t1_ms, fitted, make_strip(fitted.frames))


def _duration_s(container: InputContainer, stream: VideoStream) -> float | None:
    if stream.duration and stream.duration > 0 and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / 1e6 if container.duration and container.duration > 0 else None


def _liveliness(pixels: NDArray[np.uint8]) -> float:
    # A cover should not be the black frame that films begin with.
    return float(pixels[::4, ::4].std())
