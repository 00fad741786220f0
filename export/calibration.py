"""What goes into every layer: statistics of the inputs of each product, for methods that look at data.

Prompts run through the numpy reference, straight from the checkpoint: no graph is made and no torch is
needed. All prompts pass a layer together, so memory holds one layer's weights, and a visitor hears of each
layer as soon as it is done.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import InputError, QvlError
from qvl_local.runtime.model.bundle import Role
from qvl_local.runtime.model.pixels import PixelBudget, load_budget, to_patches
from qvl_local.runtime.model.positions import patch_positions, token_rotary
from qvl_local.runtime.model.processor import Processor, Prompt
from qvl_local.runtime.model.request import Request
from qvl_local.runtime.world.queries import query
from qvl_local.runtime.world.render import Renderer
from qvl_local.runtime.world.scenes import sample
from qvl_local.runtime.world.vocabulary import Kind

from .checkpoint import EMBEDDINGS, Checkpoint
from .reference import DecoderInputs, Floats, VisionInputs, run_decoder, run_vision

# Enough for statistics, few enough for numpy: about 1000 tokens with the sample world's pictures.
SCENES = 8
ROWS = 256
# What weights in blocks are rounded for: more would go on making it better, and cost more time.
COMPENSATED_SCENES = 32
COMPENSATED_ROWS = 4096
_VISUAL_TOKENS = 64
_SIDE = 512
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".heic", ".heif", ".avif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True, slots=True, eq=False)
class LayerInputs:
    """What one layer was given: `absmax` float32 [K] of each channel over all tokens, and `rows` float32
    [n, K], some of the tokens.

    To try on some examples what others suggest: `half_absmax` [K] is that of about half of the examples, and
    `other_rows` [m, K] are tokens of the rest. Where there are too few examples they are of all.
    """

    absmax: Floats
    rows: Floats
    half_absmax: Floats
    other_rows: Floats


Visit = Callable[[str, LayerInputs], None]


@dataclass(frozen=True, slots=True, eq=False)
class Example:
    """One input to calibrate with: a caption and, for an image, its pixels uint8 [h, w, 3] or its file."""

    text: str
    image: NDArray[np.uint8] | Path | None = None


def world_examples(count: int = SCENES) -> list[Example]:
    """Pictures of the sample world with a question each; none shows a pair that accuracy is measured on."""
    rng = random.Random("calibration")
    renderer = Renderer()
    examples = []
    for number in range(count):
        scene = sample(rng, kind=Kind.PHOTO)
        pixels = renderer.image(scene, f"calibration-{number}", _SIDE)
        examples.append(Example(query(rng, scene).text, pixels))
    return examples


def edge_examples() -> list[Example]:
    """What lies at the edge of what a model is given: next to no text, noise, black and white.

    Static scales clip what calibration never saw, so they have to see more than what is usual.
    """
    noise = np.random.default_rng(0).integers(0, 256, (_SIDE, _SIDE, 3), dtype=np.uint8)
    flat = [np.full((_SIDE, _SIDE, 3), level, np.uint8) for level in (0, 255)]
    images = [Example(text, image) for text, image in zip(("NULL", ".", "1 2 3"), (noise, *flat))]
    return [*images, Example("which came first? a red car turns left")]


def folder_examples(folder: Path, count: int = SCENES) -> list[Example]:
    """Pictures of a folder, spread evenly over its files by name, each with its file's name as a text.

    Raises:
        InputError: there is no picture.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _IMAGES and path.is_file())
    if not files:
        raise InputError(f"{folder}: holds no picture to calibrate with. Name a folder of photos.")
    step = max(1, len(files) // count)
    return [Example(path.stem.replace("_", " "), path) for path in files[::step][:count]]


def observe_inputs(
    checkpoint: Checkpoint,
    role: Role,
    examples: Sequence[Example],
    visit: Visit,
    *,
    rows: int = ROWS,
    progress: Callable[[float], None] | None = None,
) -> None:
    """Run examples through a checkpoint and tell `visit` what each layer was given, by its weight's name.

    Layers come in the order in which they compute: the vision tower's, then the decoder's. The embedder sees
    each picture and each text alone, the reranker each text with its picture.

    Args:
        checkpoint: embedder or reranker.
        role: which of the two, for the prompt.
        examples: what to look at.
        visit: is told a name such as `visual.blocks.0.attn.qkv.weight`, once for every layer.
        rows: how many tokens' inputs are kept of each layer, drawn at random.
        progress: told how far the run is, in [0, 1].

    Raises:
        InputError: no example can be used.
    """
    budget = _small(load_budget(checkpoint.folder))
    prompts = _prompts(checkpoint, role, examples, budget)
    visions = [vision for prompt in prompts for vision in prompt.visions]
    grids = [tuple(side // checkpoint.config.vision.patch_size for side in vision.size) for vision in visions]
    calls = []
    for vision, (height, width) in zip(visions, grids):
        place = patch_positions(height, width, checkpoint.config.vision)
        patches = to_patches(vision.frames, budget)
        calls.append(VisionInputs(patches, place.index, place.weight, place.cos, place.sin))
    layers = _count_layers(checkpoint)
    collector = _Collector(visit, rows, layers, progress)
    outputs = run_vision(checkpoint, calls, observe=collector)
    seen = {id(vision): output for vision, output in zip(visions, outputs)}
    table = checkpoint.stored(EMBEDDINGS)
    batches = []
    for prompt in prompts:
        embeds = table.rows(prompt.ids[None])
        deepstack = np.zeros((len(checkpoint.config.vision.deepstack_layers), *embeds.shape), np.float32)
        if prompt.visions:
            given = [seen[id(vision)] for vision in prompt.visions]
            width = embeds.shape[-1]
            embeds[0, prompt.is_visual] = np.concatenate([one.features.reshape(-1, width) for one in given])
            for level, target in enumerate(deepstack):
                target[0, prompt.is_visual] = np.concatenate(
                    [one.deepstack[level].reshape(-1, width) for one in given]
                )
        cos, sin = token_rotary(prompt.positions[:, None], checkpoint.config.text)
        batches.append(DecoderInputs(embeds, cos, sin, deepstack, np.array([len(prompt.ids) - 1])))
    run_decoder(checkpoint, batches, observe=collector)
    collector.finish()


class _Collector:
    """Gathers the inputs of one layer at a time, and hands them over when another layer begins."""

    def __init__(
        self, visit: Visit, rows: int, layers: int, progress: Callable[[float], None] | None
    ) -> None:
        self._visit = visit
        self._rows = rows
        self._layers = layers
        self._progress = progress
        self._generator = np.random.default_rng(0)
        self._open: dict[str, list[Floats]] = {}
        self._done = 0

    def __call__(self, name: str, x: Floats) -> None:
        if self._open and _block(name) != _block(next(iter(self._open))):
            self.finish()
        self._open.setdefault(name, []).append(x.reshape(-1, x.shape[-1]))

    def finish(self) -> None:
        """Hand over what is open."""
        while self._open:
            name = next(iter(self._open))
            # All inputs of a wide block are much memory: none is kept longer than it is needed.
            inputs = self._summary(self._open.pop(name))
            self._visit(name, inputs)
            del inputs
            self._done += 1
            if self._progress is not None:
                self._progress(min(1.0, self._done / self._layers))

    def _summary(self, parts: list[Floats]) -> LayerInputs:
        # Two and two, since texts and pictures alternate in what the embedder sees.
        half = [part for at, part in enumerate(parts) if at // 2 % 2 == 0]
        others = [part for at, part in enumerate(parts) if at // 2 % 2] or half
        largest = np.maximum.reduce([np.abs(part).max(axis=0) for part in half])
        return LayerInputs(
            absmax=np.maximum.reduce([largest, *(np.abs(part).max(axis=0) for part in others)]),
            rows=self._some(parts, self._rows),
            half_absmax=largest,
            other_rows=self._some(others, ROWS),
        )

    def _some(self, parts: list[Floats], count: int) -> Floats:
        chosen = np.sort(self._generator.permutation(sum(len(part) for part in parts))[:count])
        rows = np.empty((len(chosen), parts[0].shape[1]), np.float32)
        start = done = 0
        for part in parts:
            here = chosen[done : np.searchsorted(chosen, start + len(part))] - start
            rows[done : done + len(here)] = part[here]
            start, done = start + len(part), done + len(here)
        return rows


def _block(name: str) -> str:
    """The part of a name that the layers of one block share."""
    parts = name.split(".")
    numbers = [at for at, part in enumerate(parts) if part.isdigit()]
    return ".".join(parts[: numbers[0] + 1]) if numbers else ".".join(parts[:2])


def _small(budget: PixelBudget) -> PixelBudget:
    """A budget of few visual tokens a picture: numpy computes them."""
    most = _VISUAL_TOKENS * budget.factor**2
    return replace(
        budget,
        image_max_pixels=min(budget.image_max_pixels, most),
        image_min_pixels=min(budget.image_min_pixels, most),
    )


def _prompts(
    checkpoint: Checkpoint, role: Role, examples: Sequence[Example], budget: PixelBudget
) -> list[Prompt]:
    processor = Processor(checkpoint.folder, checkpoint.config, budget, role=role)
    prompts = []
    problem: QvlError | None = None
    for example in examples:
        text = processor.prepare(Request(texts=(example.text,)))
        image = None
        if example.image is not None:
            try:
                image = processor.prepare(Request(images=(example.image,)))
            except QvlError as error:
                problem = error  # a broken picture says nothing; the others do
                continue
        if role == "reranker":
            document = image if image is not None else text
            prompts.append(processor.reranking_prompt(text, document, instruction=None))
        else:
            materials = [text] if image is None else [text, image]
            prompts += [processor.embedding_prompt(material, instruction=None) for material in materials]
    if not prompts:
        raise InputError(f"There is nothing to calibrate with: {problem or 'no example was given.'}")
    return prompts


def _count_layers(checkpoint: Checkpoint) -> int:
    vision, text = checkpoint.config.vision, checkpoint.config.text
    return 1 + 4 * vision.depth + 2 * (len(vision.deepstack_layers) + 1) + 7 * text.num_layers
