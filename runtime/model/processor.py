"""From a request to what the encoder takes: token ids, their positions, and fitted pixels.

request -> fitted images and frames -> messages -> text -> token ids -> positions
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InputError
from .bundle import Role
from .config import ModelConfig
from .image import fit_image, read_image
from .pixels import PixelBudget, pair_times
from .positions import token_positions
from .prompts import ChatTemplate, Message, embedding_messages, load_template, reranking_messages
from .request import Request, VideoLike
from .tokenizer import PromptTokenizer
from .video import LIST_FPS, VideoFrames, fit_frames, from_list, read_video, thin_out

# Limits of the official embedding and reranking code, in tokens.
MAX_TOKENS: dict[Role, int] = {"embedder": 8192, "reranker": 10240}

_TEXTS_KEPT = 16


@dataclass(frozen=True, slots=True, eq=False)
class Vision:
    """One image or video, fitted.

    `frames`: uint8 [S, T, h, w, 3], S layers of T frames; both are 1 for a still image.
    `stamps` are the layers' times in seconds, None for an image.
    """

    frames: NDArray[np.uint8]
    stamps: tuple[float, ...] | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.frames.shape[2], self.frames.shape[3]


@dataclass(frozen=True, slots=True, eq=False)
class Material:
    """The fitted media and the texts of one request: done once, used in any number of prompts."""

    texts: tuple[str, ...]
    images: tuple[Vision, ...]
    videos: tuple[Vision, ...]

    @property
    def shape(self) -> tuple[tuple[str, ...], int, int]:
        """Texts, number of images, number of videos: what messages are made of."""
        return self.texts, len(self.images), len(self.videos)

    @property
    def visions(self) -> tuple[Vision, ...]:
        """All media in prompt order."""
        return self.videos + self.images


@dataclass(frozen=True, slots=True, eq=False)
class Prompt:
    """What the encoder takes for one row: token ids, their positions, and the media in prompt order.

    `ids` int64 [T]; `positions` int64 [3, T]; `is_visual` bool [T] marks the tokens of visual features.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    is_visual: NDArray[np.bool_]
    visions: tuple[Vision, ...]

    @property
    def visual_tokens(self) -> int:
        """How many tokens stand for visual features."""
        return int(self.is_visual.sum())


class Counted:
    """Prompts on their way to the encoder; `tokens` holds the length of each that has passed."""

    def __init__(self, prompts: Iterable[Prompt]) -> None:
        self._prompts = prompts
        self.tokens: list[int] = []

    def __iter__(self) -> Iterator[Prompt]:
        for prompt in self._prompts:
            self.tokens.append(len(prompt.ids))
            yield prompt


class Processor:
    """Prepares prompts for one model of the pair, by the files in its checkpoint folder."""

    def __init__(
        self,
        folder: Path,
        config: ModelConfig,
        budget: PixelBudget,
        *,
        role: Role,
        frames: Path | None = None,
    ) -> None:
        self._config = config
        self._budget = budget
        self._template = load_template(folder, frames=frames)
        limit = min(MAX_TOKENS[role], config.text.max_positions)
        self._tokenizer = PromptTokenizer(folder, config, role=role, max_tokens=limit)
        # Documents without words make one text as long as they are of one size: a reranker's photos.
        self._tokens = lru_cache(maxsize=_TEXTS_KEPT)(self._new_tokens)

    @property
    def template(self) -> ChatTemplate:
        """The checkpoint's chat template."""
        return self._template

    def shortened(self, text: str, *, tokens: int) -> str:
        """The beginning of a text, of at most so many tokens."""
        return self._tokenizer.shortened(text, tokens=tokens)

    def prepare(self, request: Request) -> Material:
        """Read, decode and fit the media of a request.

        Raises:
            MediaError: a file cannot be used.
        """
        return Material(
            texts=self._neutral(request.texts),
            images=tuple(self._image(image) for image in request.images),
            videos=tuple(
                self._video(video, fps=request.fps, max_frames=request.max_frames) for video in request.videos
            ),
        )

    def embedding_prompt(self, material: Material, *, instruction: str | None) -> Prompt:
        """The embedder's prompt."""
        texts, images, videos = material.shape
        cleaned = None if instruction is None else self._tokenizer.neutral(instruction)
        messages = embedding_messages(texts, images=images, videos=videos, instruction=cleaned)
        return self._prompt(messages, material.visions)

    def reranking_prompt(self, query: Material, document: Material, *, instruction: str | None) -> Prompt:
        """The reranker's prompt for one pair."""
        cleaned = None if instruction is None else self._tokenizer.neutral(instruction)
        messages = reranking_messages(query.shape, document.shape, instruction=cleaned)
        return self._prompt(messages, query.visions + document.visions)

    def _neutral(self, texts: tuple[str, ...]) -> tuple[str, ...]:
        """Texts in which nothing reads as a special token, not even across the border of two."""
        neutral = tuple(self._tokenizer.neutral(text) for text in texts)
        joined = "".join(neutral)
        if self._tokenizer.neutral(joined) != joined:
            return (*neutral[:1], *(f" {text}" for text in neutral[1:]))
        return neutral

    def _prompt(self, messages: Sequence[Message], visions: Sequence[Vision]) -> Prompt:
        text = self._expand(self._template.render(messages), visions)
        grids = tuple(grid for vision in visions for grid in [self._grid(vision)] * len(vision.frames))
        ids, positions, is_visual = self._tokens(text, grids)
        return Prompt(ids=ids, positions=positions, is_visual=is_visual, visions=tuple(visions))

    def _new_tokens(
        self, text: str, grids: tuple[tuple[int, int], ...]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Ids, positions and visual places of a whole prompt. Prompts share them: they cannot be written."""
        ids = np.asarray(self._tokenizer.encode(text), dtype=np.int64)
        is_visual = (ids == self._config.image_token_id) | (ids == self._config.video_token_id)
        positions = token_positions(is_visual, grids)
        for shared in (ids, positions, is_visual):
            shared.flags.writeable = False
        return ids, positions, is_visual

    def _expand(self, text: str, visions: Sequence[Vision]) -> str:
        """Replace each vision placeholder by as many tokens as its features take.

        A video becomes one group a layer, each behind its time stamp, and loses the outer start and end: so
        it is in transformers 4.57, with which the models were made (version 5 keeps the outer pair).
        """
        tokenizer = self._tokenizer
        rest = text
        done = []
        for vision in visions:
            rows, columns = self._grid(vision)
            if vision.stamps is None:
                before, found, rest = rest.partition(tokenizer.image_token)
                done.append(before + tokenizer.image_token * (rows * columns))
            else:
                layer = (
                    tokenizer.vision_start + tokenizer.video_token * (rows * columns) + tokenizer.vision_end
                )
                wrapped = tokenizer.vision_start + tokenizer.video_token + tokenizer.vision_end
                mark = wrapped if wrapped in rest else tokenizer.video_token
                before, found, rest = rest.partition(mark)
                done.append(before + "".join(f"<{stamp:.1f} seconds>{layer}" for stamp in vision.stamps))
            if not found:
                raise InputError("The chat template leaves out an image or a video of the input.")
        return "".join(done) + rest

    def _grid(self, vision: Vision) -> tuple[int, int]:
        """Rows and columns of visual tokens of one layer."""
        height, width = vision.size
        return height // self._budget.factor, width // self._budget.factor

    def _image(self, image: Any) -> Vision:
        if isinstance(image, (str, Path)):
            pixels = read_image(image, budget=self._budget)
        else:
            pixels = fit_image(image, self._budget)
        return Vision(frames=pixels[None, None], stamps=None)

    def _video(self, video: VideoLike, *, fps: float | None, max_frames: int | None) -> Vision:
        most = max_frames or self._budget.max_frames
        if isinstance(video, (str, Path)):
            return self._layers(read_video(video, budget=self._budget, fps=fps, max_frames=max_frames))
        if isinstance(video, VideoFrames):
            return self._layers(fit_frames(thin_out(video, most), self._budget))
        if isinstance(video, np.ndarray):
            times = np.arange(len(video)) / (fps or LIST_FPS)
            return self._layers(fit_frames(thin_out(VideoFrames(video, times), most), self._budget))
        frames = [read_image(frame) if isinstance(frame, (str, Path)) else frame for frame in video]
        return self._layers(fit_frames(from_list(frames, fps=fps, max_frames=most), self._budget))

    def _layers(self, video: VideoFrames) -> Vision:
        """Group frames by the temporal patch size; a missing last one is the last one again."""
        step = self._budget.temporal_patch_size
        frames = video.frames
        missing = -len(frames) % step
        if missing:
            frames = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        return Vision(
            frames=frames.reshape(-1, step, *frames.shape[1:]),
            stamps=tuple(pair_times(video.times_s, self._budget)),
        )
