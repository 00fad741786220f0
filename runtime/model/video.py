"""Videos: a film, or a stretch of one, becomes a handful of upright RGB frames with their times.

Frames are chosen as `Qwen3VLVideoProcessor` chooses them: `fps` a second, evenly spread, first and last
included. Damage in the middle costs the frames that it hits. PyAV is imported when the first video comes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError, MediaError, MediaLimitError
from .image import to_rgb
from .pixels import PixelBudget, fit_frame_size, sample_indices
from .resample import resample

if TYPE_CHECKING:
    from av.container import InputContainer
    from av.video.frame import VideoFrame
    from av.video.stream import VideoStream

# A frame above this is not a film but an attack: 8K is 33 million pixels.
MAX_FRAME_PIXELS = 64_000_000

# Frames given as a list carry no times; the reference code assumes two a second.
LIST_FPS = 2.0

# Demuxers that hold one film each. No playlists, no image sequences, no network: a file cannot name another.
FORMATS = (
    "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,ogg,mxf,dv,gif,apng,"
    "webp_pipe,h264,hevc,ivf,m4v,nut,rm,vob,wtv,obu,av1,yuv4mpegpipe"
)

NO_DECODER = "nothing here can decode its pictures; save it anew as MP4 (H.264) with another program"
"""Why a film of a codec that FFmpeg does not know, or that damage made unknown, is not read."""

# Beyond this gap between two wanted frames it pays to seek instead of decoding everything between.
_SEEK_GAP_S = 6.0
# Packets without a single frame, after which a film counts as undecodable.
_MAX_BARREN_PACKETS = 5000


@dataclass(frozen=True, slots=True)
class VideoFrames:
    """Frames of a film in order, with their times.

    `frames`: uint8 [F, h, w, 3]. `times_s`: float [F], seconds since the start of the film or stretch.
    """

    frames: NDArray[np.uint8]
    times_s: NDArray[np.float64]

    def __post_init__(self) -> None:
        frames = self.frames
        if not isinstance(frames, np.ndarray) or frames.dtype != np.uint8:
            raise InputError("Video frames must be a uint8 array of the shape [frames, h, w, 3].")
        if frames.ndim != 4 or frames.shape[3] != 3 or 0 in frames.shape:
            raise InputError(f"Video frames must have the shape [frames, h, w, 3], not {list(frames.shape)}.")
        if np.shape(self.times_s) != (len(frames),):
            raise InputError("Video frames need exactly one time each.")


def read_video(
    path: str | Path,
    *,
    budget: PixelBudget,
    start_s: float = 0.0,
    end_s: float | None = None,
    fps: float | None = None,
    max_frames: int | None = None,
) -> VideoFrames:
    """Sample and fit the frames of the stretch [start_s, end_s) of a film.

    Args:
        path: MP4, MOV, MKV, WebM, AVI and other containers of one film.
        budget: sampling rate, bounds of the number of frames, and of their size.
        start_s: where the stretch begins, in seconds since the film's start.
        end_s: where it ends; None is the film's end.
        fps: sampling rate instead of the budget's.
        max_frames: at most so many frames instead of the budget's.

    Returns:
        Fitted frames; times count from the start of the stretch.

    Raises:
        MediaLimitError: the frames are too large.
        MediaError: no such file, no video in it, or nothing of the stretch can be decoded.
    """
    import av

    try:
        with _open(path) as container:
            stream = _video_stream(container, path)
            total = _number_of_frames(container, stream) or _counted(path)
            plan = _plan(stream, total, budget, start_s, end_s, fps, max_frames)
            chosen: list[NDArray[np.uint8]] = []
            times: list[float] = []
            size: tuple[int, int] | None = None
            for time, frame in _pick(container, stream, plan):
                pixels = _upright(frame, path)
                if size is None:
                    size = fit_frame_size(len(plan.times_s), pixels.shape[0], pixels.shape[1], budget)
                chosen.append(resample(pixels, size))
                times.append(time)
    except FileNotFoundError:
        raise MediaError(path, "no such file") from None
    except MemoryError:
        raise MediaLimitError(path, "takes more memory than there is") from None
    except (av.error.FFmpegError, OSError) as error:
        raise MediaError(path, f"not a video that can be read ({error.strerror or error})") from error
    if not chosen:
        raise MediaError(path, "no frame of the video can be decoded")
    return VideoFrames(frames=np.stack(chosen), times_s=np.asarray(times))


def fit_frames(video: VideoFrames, budget: PixelBudget) -> VideoFrames:
    """Resize frames to their smart-resize size. Fitting fitted frames changes nothing."""
    count, height, width, _ = video.frames.shape
    size = fit_frame_size(count, height, width, budget)
    if size == (height, width):
        return video
    return VideoFrames(
        frames=np.stack([resample(frame, size) for frame in video.frames]), times_s=video.times_s
    )


def from_list(frames: Sequence[Any], *, fps: float | None = None, max_frames: int) -> VideoFrames:
    """Frames given one by one (Pillow images, uint8 arrays), `fps` a second, thinned out to `max_frames`.

    All are brought to the size of the first.
    """
    if not frames:
        raise InputError("A video given as a list of frames needs at least one frame.")
    picked = spread(len(frames), max_frames)
    pixels = [to_rgb(frames[i]) for i in picked]
    size = (pixels[0].shape[0], pixels[0].shape[1])
    # The reference numbers the frames it kept, not those it was given.
    times = np.arange(len(picked)) / (fps or LIST_FPS)
    return VideoFrames(frames=np.stack([resample(frame, size) for frame in pixels]), times_s=times)


def thin_out(video: VideoFrames, max_frames: int) -> VideoFrames:
    """At most `max_frames` of the frames, evenly spread, with their own times."""
    if len(video.frames) <= max_frames:
        return video
    picked = spread(len(video.frames), max_frames)
    return VideoFrames(frames=video.frames[picked], times_s=np.asarray(video.times_s)[picked])


def spread(count: int, limit: int) -> list[int]:
    """Indices of at most `limit` of `count` items, evenly spread, rounded down as the reference code does."""
    if count <= limit:
        return list(range(count))
    return [int(i) for i in np.linspace(0, count - 1, limit, dtype=int)]


@dataclass(frozen=True, slots=True)
class _Plan:
    """Which moments are wanted: `times_s` since the start of the stretch, which begins at `origin_s` in the
    stream's own clock; `frame_s` is how long one frame is shown."""

    times_s: tuple[float, ...]
    origin_s: float
    frame_s: float


@contextmanager
def _open(path: str | Path) -> Iterator[InputContainer]:
    import av

    name = str(Path(path).absolute())
    if not Path(name).is_file():
        raise MediaError(path, "not a file" if Path(name).exists() else "no such file")
    options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
    with ExitStack() as stack:
        # The protocol is spelled out, since ffmpeg would take "concat:" or "http:" in a file name for one.
        source: Any = f"file:{name}"
        if not _is_utf8(name):
            source = stack.enter_context(Path(name).open("rb"))
        yield stack.enter_context(av.open(source, mode="r", options=options, metadata_errors="replace"))


def _is_utf8(name: str) -> bool:
    """Whether a name reaches ffmpeg whole; others hold undecodable bytes."""
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _video_stream(container: InputContainer, path: str | Path) -> VideoStream:
    streams = [s for s in container.streams.video if not s.disposition & _attached_picture()]
    if not streams:
        raise MediaError(path, "holds no video stream")
    stream = streams[0]
    if not has_decoder(stream):
        raise MediaError(path, NO_DECODER)
    if stream.width * stream.height > MAX_FRAME_PIXELS:
        raise MediaLimitError(
            path, f"frames of {stream.width}x{stream.height} are more than {MAX_FRAME_PIXELS:,} pixels"
        )
    stream.thread_type = "AUTO"
    return stream


def _attached_picture() -> Any:
    from av.stream import Disposition

    return Disposition.attached_pic


def _plan(
    stream: VideoStream,
    total: int,
    budget: PixelBudget,
    start_s: float,
    end_s: float | None,
    fps: float | None,
    max_frames: int | None,
) -> _Plan:
    rate = _rate(stream)
    origin = float((stream.start_time or 0) * (stream.time_base or 0))
    first = min(max(round(start_s * rate), 0), max(total - 1, 0))
    last = total if end_s is None else min(max(round(end_s * rate), first + 1), max(total, first + 1))
    most = max_frames or budget.max_frames
    indices = sample_indices(
        max(last - first, 1),
        rate,
        fps=fps or budget.fps,
        min_frames=min(budget.min_frames, most),
        max_frames=most,
    )
    return _Plan(times_s=tuple(i / rate for i in indices), origin_s=origin + first / rate, frame_s=1 / rate)


def _rate(stream: VideoStream) -> float:
    """Frames a second, on average; 24 where nothing is known, as transformers assumes."""
    return float(stream.average_rate or stream.guessed_rate or stream.base_rate or 24)


def _number_of_frames(container: InputContainer, stream: VideoStream) -> int:
    """How many frames a film has by its own account; 0 if it has none."""
    if stream.frames:
        return stream.frames
    if stream.duration and stream.time_base:
        return round(float(stream.duration * stream.time_base) * _rate(stream))
    return round((container.duration or 0) / 1_000_000 * _rate(stream))


def _counted(path: str | Path) -> int:
    """How many frames a raw or broken-off stream has: its packets are counted, not decoded."""
    import av

    count = 0
    with _open(path) as container, suppress(av.error.FFmpegError):
        for packet in container.demux(_video_stream(container, path)):
            count += packet.size > 0
    return count


def _pick(container: InputContainer, stream: VideoStream, plan: _Plan) -> Iterator[tuple[float, VideoFrame]]:
    """Yield each wanted moment that can be had with the frame shown then, decoding no more than needed."""
    wanted = list(plan.times_s)
    # A frame stands for a moment up to half a step of sampling away; further off, the moment is lost.
    step = wanted[1] - wanted[0] if len(wanted) > 1 else float("inf")
    slack = max(step / 2, 2 * plan.frame_s)
    at = 0
    latest: tuple[float, VideoFrame] | None = None
    sought = 0  # a film is sought through at most once for each moment, so this ends
    seek_to: float | None = wanted[0] + plan.origin_s if plan.origin_s > _SEEK_GAP_S else None
    ended = False
    while not ended:
        ended = True
        for frame in _decode(container, stream, seek_to):
            if frame.time is not None:
                now = frame.time - plan.origin_s
            else:  # raw streams carry no times: the frames are counted
                now = 0.0 if latest is None else latest[0] + plan.frame_s
            latest = (now, frame)
            while at < len(wanted) and now >= wanted[at] - plan.frame_s / 2:
                if now <= wanted[at] + slack:
                    yield wanted[at], frame
                at += 1
            if at == len(wanted):
                return
            if wanted[at] - now > _SEEK_GAP_S and sought < at:
                sought, ended = at, False
                seek_to = wanted[at] + plan.origin_s
                break
    # A container may promise a little more than it holds: its last frame stands in for the last moment.
    if latest is not None and at < len(wanted) and wanted[at] - latest[0] <= slack:
        yield wanted[at], latest[1]


def _decode(container: InputContainer, stream: VideoStream, seek_to: float | None) -> Iterator[VideoFrame]:
    """Frames from the key frame at or before `seek_to` on."""
    import av

    if seek_to is not None and stream.time_base:
        try:
            container.seek(int(seek_to / stream.time_base), stream=stream, backward=True)
        except av.error.FFmpegError:
            container.seek(0)
    yield from decoded_frames(container, stream)


def has_decoder(stream: VideoStream) -> bool:
    """Whether anything here can decode a stream; its size is not even known otherwise."""
    return getattr(stream, "codec_context", None) is not None


def decoded_frames(container: InputContainer, stream: VideoStream) -> Iterator[VideoFrame]:
    """Frames from here on. Packets that cannot be decoded are passed over, up to a number in a row.

    Raises:
        MemoryError: there is not enough for a frame, which the frames behind it would not change.
    """
    import av

    barren = 0
    packets = container.demux(stream)
    while barren < _MAX_BARREN_PACKETS:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except av.error.FFmpegError:
            return  # the container itself ends in damage; what came before counts
        try:
            frames = packet.decode()
        except MemoryError:  # FFmpeg's own is an FFmpegError as well
            raise
        except av.error.FFmpegError:
            barren += 1
            continue
        barren = 0 if frames else barren + 1
        yield from frames


def _upright(frame: VideoFrame, path: str | Path) -> NDArray[np.uint8]:
    """RGB pixels of a frame, turned as its display matrix says."""
    if frame.width * frame.height > MAX_FRAME_PIXELS:
        raise MediaLimitError(
            path, f"frames of {frame.width}x{frame.height} are more than {MAX_FRAME_PIXELS:,} pixels"
        )
    pixels = np.asarray(frame.to_ndarray(format="rgb24"), dtype=np.uint8)
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
