"""Optimisation profiles: the ranges of shapes that an engine is tuned for, from pixel and batch settings.

The encoder runs many small images or few large ones, but never more than so many patches or tokens at once.
One profile over all sizes would reserve memory for many large ones, so each graph has a ladder of profiles:
each rung spans a factor of four in length and allows as many rows as the run limit leaves at its lower end.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ..errors import InputError
from .config import ModelConfig, VisionConfig
from .encoder import PATCHES_A_RUN, TOKENS_A_RUN
from .pixels import OFFICIAL_MAX_TOKENS, PixelBudget

Shape = tuple[int, ...]

# As many prompts as a wave of the encoder holds.
PROMPTS_A_RUN = 256

_SPAN = 4
_SHORTEST_PROMPT = 16
# The context of the official reranking code; the embedder's is shorter.
LONGEST_PROMPT = 10_240


@dataclass(frozen=True, slots=True)
class RunLimits:
    """How much one run may hold; the defaults are those of the encoder.

    `patches` and `tokens` of all rows together, unless one row alone is longer; `prompts` rows at most;
    `longest` tokens in one prompt.
    """

    patches: int = PATCHES_A_RUN
    tokens: int = TOKENS_A_RUN
    prompts: int = PROMPTS_A_RUN
    longest: int = LONGEST_PROMPT

    def __post_init__(self) -> None:
        if min(self.patches, self.tokens, self.prompts, self.longest) < 1:
            raise InputError("Limits of a run are numbers above 0.")


@dataclass(frozen=True, slots=True)
class Profile:
    """For each input its smallest, likeliest and largest shape."""

    ranges: Mapping[str, tuple[Shape, Shape, Shape]]

    def shapes(self) -> dict[str, list[list[int]]]:
        """As lists, for JSON."""
        return {name: [list(shape) for shape in shapes] for name, shapes in self.ranges.items()}


@dataclass(frozen=True, slots=True)
class _Rung:
    """Lengths from `low` to `high`, rows from 1 to `rows`; `usual` rows of the full length fill a run."""

    low: int
    high: int
    rows: int
    usual: int


def vision_profiles(vision: VisionConfig, budget: PixelBudget, limits: RunLimits) -> list[Profile]:
    """Profiles of the vision graph: S images of N patches, up to the largest of the pixel budget."""
    merged = vision.merge_size**2
    most = max(budget.image_max_pixels, budget.video_max_pixels) // vision.patch_size**2
    most = max(merged, most // merged * merged)
    half = vision.head_dim // 2
    profiles = []
    for rung in _ladder(merged, 4 * merged, most, limits.patches, limits.patches):
        corners = ((1, rung.low), (rung.usual, rung.high), (rung.rows, rung.high))
        profiles.append(
            Profile(
                {
                    "patches": _each((s, n, vision.patch_dim) for s, n in corners),
                    "pos_idx": _each((n, 4) for _, n in corners),
                    "pos_w": _each((n, 4) for _, n in corners),
                    "cos": _each((n, half) for _, n in corners),
                    "sin": _each((n, half) for _, n in corners),
                }
            )
        )
    return profiles


def decoder_profiles(config: ModelConfig, limits: RunLimits, *, adapters: bool) -> list[Profile]:
    """Profiles of the decoder graph: B rows of T tokens.

    Text alone passes one zero row of deepstack features that is broadcast, so their smallest shape is [1, 1]
    beside any B and T.
    """
    text = config.text
    levels, half = len(config.vision.deepstack_layers), text.head_dim // 2
    longest = min(limits.longest, text.max_positions)
    profiles = []
    for rung in _ladder(1, 4 * _SHORTEST_PROMPT, longest, limits.tokens, limits.prompts, _SHORTEST_PROMPT):
        corners = ((1, rung.low), (rung.usual, rung.high), (rung.rows, rung.high))
        features = ((1, 1), *corners[1:])
        ranges = {
            "embeds": _each((b, t, text.hidden_size) for b, t in corners),
            "cos": _each((b, t, half) for b, t in corners),
            "sin": _each((b, t, half) for b, t in corners),
            "deepstack": _each((levels, b, t, text.hidden_size) for b, t in features),
            "last": _each((b,) for b, _ in corners),
        }
        if adapters:
            ranges["adapter"] = ((1,), (1,), (1,))
        profiles.append(Profile(ranges))
    return profiles


def free_profiles(inputs: Mapping[str, tuple[int | str, ...]], limits: RunLimits) -> list[Profile]:
    """Profiles for a graph of which only the shapes of its inputs are known, free sizes by their names.

    S and N, or B and T, climb the ladder; DB and DT follow B and T from 1.
    """
    vision = any("N" in shape for shape in inputs.values())
    if vision:
        rungs = _ladder(4, 16, 4 * OFFICIAL_MAX_TOKENS, limits.patches, limits.patches)
    else:
        rungs = _ladder(
            1, 4 * _SHORTEST_PROMPT, limits.longest, limits.tokens, limits.prompts, _SHORTEST_PROMPT
        )
    profiles = []
    for rung in rungs:
        corners = ((1, rung.low), (rung.usual, rung.high), (rung.rows, rung.high))
        sizes = [{"S": a, "N": b, "B": a, "T": b, "DB": a, "DT": b} for a, b in corners]
        sizes[0] |= {"DB": 1, "DT": 1}
        profiles.append(
            Profile(
                {
                    name: _each(
                        tuple(size if isinstance(size, int) else here[size] for size in shape)
                        for here in sizes
                    )
                    for name, shape in inputs.items()
                }
            )
        )
    return profiles


def _ladder(
    shortest: int, first: int, longest: int, limit: int, most_rows: int, typical: int | None = None
) -> Iterator[_Rung]:
    """Rungs from `shortest` to `longest`; the first ends at `first`.

    Below `typical` (default: a quarter of the first rung) lengths are rare, and do not raise the rows.
    """
    low, high = shortest, first
    while True:
        high = min(high, longest)
        fewest = max(low, first // _SPAN if typical is None else typical)
        rows = max(1, min(most_rows, limit // fewest))
        yield _Rung(low, high, rows, max(1, min(rows, limit // high)))
        if high >= longest:
            return
        low, high = high, high * _SPAN


def _each(shapes: Iterator[Shape]) -> tuple[Shape, Shape, Shape]:
    low, likely, high = shapes
    return low, likely, high
