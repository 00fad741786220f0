"""Token layouts of the prompts that the two models are trained on.

A prompt is cut into a constant prefix, which a batch runs once, and the part that differs between rows. The
strings are those of the checkpoints' chat template; `tests/models` compares them with `transformers`.
This module knows nothing about weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from tokenizers import Tokenizer
from torch import Tensor

DOCUMENT_INSTRUCTION = "Represent the user's input."
QUERY_INSTRUCTIONS = ("Retrieve images or text relevant to the user's query.", DOCUMENT_INSTRUCTION)
JUDGE = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)
RERANK_INSTRUCTION = "Given a search query, retrieve relevant candidates that answer the query."


@dataclass(frozen=True, slots=True)
class Grid:
    """Visual tokens of one document: `slices` of `side` x `side` tokens (one token is 32 x 32 pixels)."""

    slices: int
    side: int
    video: bool

    @property
    def tokens(self) -> int:
        return self.slices * self.side**2


IMAGE = Grid(slices=1, side=4, video=False)
CLIP_8 = Grid(slices=4, side=4, video=True)
CLIP_16 = Grid(slices=8, side=3, video=True)


@dataclass(frozen=True, slots=True)
class Layout:
    """Ids and mrope positions of one prompt, `prefix` tokens of which are the same for every document."""

    ids: Tensor  # int64 [L]
    positions: Tensor  # int64 [3, L]
    prefix: int
    visual: Tensor  # int64 [V], indices into ids


class Prompts:
    """Builds token ids with the shared tokenizer of the pair."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self.pad = self.id("<|endoftext|>")
        self.image_pad, self.video_pad = self.id("<|image_pad|>"), self.id("<|video_pad|>")
        self.yes, self.no = self.id("yes"), self.id("no")
        self.judge_prefix = self.encode(
            f"<|im_start|>system\n{JUDGE}<|im_end|>\n<|im_start|>user\n"
            f"<Instruct>: {RERANK_INSTRUCTION}<Query>:"
        )
        self._cached_layout = lru_cache(maxsize=4096)(self._layout)

    def id(self, token: str) -> int:
        """The id of one token; ValueError when the vocabulary lacks it."""
        index = self._tokenizer.token_to_id(token)
        if index is None:
            raise ValueError(f"the tokenizer has no token {token!r}")
        return index

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def query(self, text: str, *, instruction: str) -> tuple[list[int], list[int]]:
        """(prefix, rest) of an embedding prompt for a text query."""
        return self.query_prefix(instruction), self.encode(
            f"{text}<|im_end|>\n<|im_start|>assistant\n<|endoftext|>"
        )

    def query_prefix(self, instruction: str) -> list[int]:
        return self.encode(f"<|im_start|>system\n{instruction}<|im_end|>\n<|im_start|>user\n")

    def document(self, grid: Grid, seconds: Sequence[float] = (), *, outer: bool = False) -> Layout:
        """Embedding prompt of an image or clip; `outer` keeps the vision_start/end pair around a clip's
        groups.
        """
        return self._cached_layout(grid, tuple(round(s, 1) for s in seconds), outer, False)

    def judged(self, grid: Grid, seconds: Sequence[float] = (), *, outer: bool = False) -> Layout:
        """Document part of a reranking prompt: from the first token that is no longer text of the query."""
        return self._cached_layout(grid, tuple(round(s, 1) for s in seconds), outer, True)

    def judged_query(self, text: str) -> list[int]:
        return self.encode(f"{text}\n<Document>:")

    def _layout(self, grid: Grid, seconds: tuple[float, ...], outer: bool, judged: bool) -> Layout:
        start, end = self.id("<|vision_start|>"), self.id("<|vision_end|>")
        prefix = [] if judged else self.query_prefix(DOCUMENT_INSTRUCTION)
        ids = list(prefix)
        square = grid.side**2
        if not grid.video:
            ids += [start] + [self.image_pad] * square + [end]
        else:
            if len(seconds) != grid.slices:
                raise ValueError(f"{grid.slices} slices need as many time stamps, not {len(seconds)}")
            ids += [start] if outer else []
            for second in seconds:
                ids += self.encode(f"<{second:.1f} seconds>") + [start] + [self.video_pad] * square + [end]
            ids += [end] if outer else []
        ids += self.encode("<|im_end|>\n<|im_start|>assistant\n" + ("" if judged else "<|endoftext|>"))
        tensor = torch.tensor(ids)
        visual = ((tensor == self.image_pad) | (tensor == self.video_pad)).nonzero()[:, 0]
        return Layout(
            tensor, mrope_positions(ids, {self.image_pad, self.video_pad}, grid.side), len(prefix), visual
        )


def mrope_positions(ids: Sequence[int], visual: set[int], side: int) -> Tensor:
    """Positions int64 [3, L] (time, row, column) as Qwen3-VL counts them: a run of visual tokens spans its
    side.
    """
    rows: list[tuple[int, int, int]] = []
    position, index = 0, 0
    while index < len(ids):
        if ids[index] in visual:
            rows += [(position, position + y, position + x) for y in range(side) for x in range(side)]
            index += side * side
            position += side
        else:
            rows.append((position, position, position))
            index += 1
            position += 1
    return torch.tensor(rows).T.contiguous()
