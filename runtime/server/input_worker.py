"""The program that decodes what a client sent: one picture or film a task, fitted to a model's pixel budget.

Started by `decoders.py` as `python -m qvl_local.runtime.server.input_worker`, under the limits and in the
manner of the library's decoding processes. Gives exactly the pixels that `Embedder.embed` would make of the
same file. The first bytes decide what a file is; a decoder gets the one format that it may be.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

from ..errors import MediaAccessError, MediaError, MediaLimitError
from ..library.decode import Piece
from ..library.formats import Format
from ..library.photo import damage_named, open_photo, read_format
from ..library.worker import serve
from ..model.pixels import PixelBudget
from ..reasons import unread_file


@dataclass(frozen=True, slots=True)
class InputTask:
    """One file to decode. `fps` and `max_frames`, for films, as in `Embedder.embed`."""

    path: str
    kind: Literal["image", "video"]
    budget: PixelBudget
    max_pixels: int
    max_film_s: float
    fps: float | None = None
    max_frames: int | None = None


def decode_input(task: InputTask, beat: Callable[[], None]) -> Iterator[Piece]:
    """The one piece that a file is: uint8 [h, w, 3] of a picture, `VideoFrames` of a film.

    Raises:
        MediaError: it is damaged, or not of the kind that it should be.
        MediaLimitError: it is over a limit.
    """
    try:
        with Path(task.path).open("rb") as file:
            form = read_format(file, task.path)
            if task.kind == "video":
                beat()
                yield _film(file, form, task)
            else:
                yield _picture(file, form, task)
    except OSError as error:
        if error.errno is None:
            raise
        raise MediaAccessError(task.path, unread_file(error)) from error


def _picture(file: BinaryIO, form: Format, task: InputTask) -> Piece:
    from PIL import Image

    from ..model.image import fit_image, to_rgb
    from ..model.raw_photo import read_raw

    if form.kind != "photo":
        raise MediaError(task.path, f"it is a {form.name} video, no picture; send it as a video")
    Image.MAX_IMAGE_PIXELS = None  # in this process; our own limit is checked before anything is decoded
    if form.opener == "RAW":
        raw = read_raw(file, task.path, max_pixels=task.max_pixels)
        return Piece(0, 0, fit_image(raw.pixels, task.budget))
    with damage_named(task.path), open_photo(file, form) as image:
        if image.width * image.height > task.max_pixels:
            raise MediaLimitError(
                task.path,
                f"{image.width}x{image.height} pixels are more than the limit of "
                f"{task.max_pixels // 10**6} million",
            )
        return Piece(0, 0, fit_image(to_rgb(image), task.budget))


def _film(file: BinaryIO, form: Format, task: InputTask) -> Piece:
    from ..model.video import read_video

    if form.kind != "video" and not _is_moving(file, form, task):
        raise MediaError(task.path, f"it is a {form.name} picture, no video; send it as an image")
    duration_s = _duration_s(file, form) if form.kind == "video" else 0.0
    if duration_s > task.max_film_s:
        raise MediaLimitError(
            task.path, f"it lasts {duration_s:,.0f} s, which is over the limit of {task.max_film_s:,.0f} s"
        )
    frames = read_video(task.path, budget=task.budget, fps=task.fps, max_frames=task.max_frames)
    return Piece(0, round(duration_s * 1000), frames)


def _is_moving(file: BinaryIO, form: Format, task: InputTask) -> bool:
    """Whether a picture is an animation that can be read as a film."""
    if form.name not in ("GIF", "PNG"):
        return False
    with damage_named(task.path), open_photo(file, form) as image:
        return bool(getattr(image, "is_animated", False))


def _duration_s(file: BinaryIO, form: Format) -> float:
    """How long a film says that it lasts; 0 when it does not say, and for one that cannot be opened."""
    import av

    try:
        options = {"protocol_whitelist": "none"}
        with av.open(file, mode="r", format=form.opener, options=options, metadata_errors="replace") as film:
            return max(film.duration or 0, 0) / 1e6
    except av.error.FFmpegError:
        return 0.0  # reading it will say what is wrong


def main() -> None:
    """Serve tasks; the arguments are the memory limit in MB and the time limit in seconds."""
    serve(decode_input, memory_mb=int(sys.argv[1]), time_limit_s=float(sys.argv[2]))


if __name__ == "__main__":
    main()
