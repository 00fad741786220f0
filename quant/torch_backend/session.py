"""`Session`s on transformers' modules: the two dense graphs of `runtime.model.session`, run by torch.

Both take the host's patches, positions and rotary tables as they are; attention is torch's own
`scaled_dot_product_attention`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from qvl_local.runtime.errors import ModelError, ModelMemoryError
from qvl_local.runtime.model.session import Array
from torch.nn import functional

from .load import Towers
from .memory import first_line, is_out_of_memory

Arrays = dict[str, NDArray[np.float32]]


class _TorchSession(ABC):
    """One tower; what torch raises comes out as an error of our own."""

    name = "the model"

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def run(self, feeds: Mapping[str, Array]) -> Arrays:
        """Run the tower once.

        Raises:
            ModelMemoryError: the batch does not fit into memory; a smaller one may.
            ModelError: torch failed.
        """
        try:
            with torch.inference_mode():
                return self._run(feeds)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise ModelError(f"torch failed to run {self.name} ({first_line(error)}).") from error
        # Behind the handler, so that no frame of the failed run holds on to its tensors.
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        raise ModelMemoryError(
            f"{self.name} does not fit into the memory of {self._device} with this batch. "
            "Choose nf4, fewer pixels an image, or the device cpu."
        )

    @abstractmethod
    def _run(self, feeds: Mapping[str, Array]) -> Arrays:
        """The tower's outputs; whatever torch raises may come out."""

    def _tensor(self, values: Array, dtype: torch.dtype) -> torch.Tensor:
        owned = np.require(values, requirements=["C", "W"])  # torch takes no read-only memory
        return torch.from_numpy(owned).to(self._device, dtype)


class VisionSession(_TorchSession):
    """The vision tower: see `Session`."""

    name = "the vision tower"

    def __init__(self, towers: Towers, device: torch.device) -> None:
        super().__init__(device)
        self._tower = towers.vision

    def _run(self, feeds: Mapping[str, Array]) -> Arrays:
        tower = self._tower
        # A convolution whose kernel is its stride: one product a patch.
        project = tower.patch_embed.proj
        dtype = project.weight.dtype
        patches = self._tensor(feeds["patches"], dtype)
        index = self._tensor(feeds["pos_idx"], torch.int64)
        weight = self._tensor(feeds["pos_w"], torch.float32)
        cos, sin = (self._tensor(feeds[name], torch.float32) for name in ("cos", "sin"))
        learned = (tower.pos_embed(index).float() * weight[..., None]).sum(dim=1)
        x = functional.linear(patches, project.weight.flatten(1), project.bias) + learned.to(dtype)
        levels: list[torch.Tensor] = []  # in the order of depth, as transformers hands them on
        for number, block in enumerate(tower.blocks):
            x = x + _attend(block.attn, block.norm1(x), cos, sin)
            x = x + block.mlp(block.norm2(x))
            if number in tower.deepstack_visual_indexes:
                which = tower.deepstack_visual_indexes.index(number)
                levels.append(_merged(tower.deepstack_merger_list[which], x))
        features = _merged(tower.merger, x)
        deepstack = torch.stack(levels) if levels else features.new_zeros((0, *features.shape))
        return {"features": _array(features), "deepstack": _array(deepstack)}


class DecoderSession(_TorchSession):
    """The decoder: see `Session`."""

    name = "the decoder"

    def __init__(self, towers: Towers, device: torch.device) -> None:
        super().__init__(device)
        self._decoder = towers.decoder

    def _run(self, feeds: Mapping[str, Array]) -> Arrays:
        decoder = self._decoder
        dtype = decoder.norm.weight.dtype
        x, cos, sin, deepstack = (
            self._tensor(feeds[name], dtype) for name in ("embeds", "cos", "sin", "deepstack")
        )
        last = self._tensor(feeds["last"], torch.int64)
        # transformers turns pairs (i, i + d / 2) with tables as wide as the head: each half once more.
        rotary = (torch.cat([cos, cos], dim=-1), torch.cat([sin, sin], dim=-1))
        for number, layer in enumerate(decoder.layers):
            # No mask: attention is causal, so a row never sees its padding on the right.
            x = layer(x, position_embeddings=rotary, attention_mask=None)
            if number < len(deepstack):
                x = x + deepstack[number]
        rows = x[torch.arange(len(x), device=x.device), last]
        return {"pooled": _array(decoder.norm(rows.float()))}


def _attend(attention: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Attention within each of the S images: [S, N, C] -> [S, N, C]."""
    images, patches, _ = x.shape
    qkv = attention.qkv(x).reshape(images, patches, 3, attention.num_heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
    mixed = functional.scaled_dot_product_attention(_rotated(q, cos, sin), _rotated(k, cos, sin), v)
    joined: torch.Tensor = attention.proj(mixed.transpose(1, 2).reshape(images, patches, -1))
    return joined


def _rotated(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    """Turn pairs (i, i + d / 2) of the last axis, in float32 as the model was trained."""
    low, high = x.float().chunk(2, dim=-1)
    return torch.cat([low * cos - high * sin, high * cos + low * sin], dim=-1).to(x.dtype)


def _merged(merger: Any, x: torch.Tensor) -> torch.Tensor:
    """Patches to tokens: [S, N, C] -> [S, N / merge², H]."""
    tokens: torch.Tensor = merger(x.reshape(-1, x.shape[-1]))
    return tokens.reshape(len(x), -1, tokens.shape[-1])


def _array(x: torch.Tensor) -> NDArray[np.float32]:
    values: NDArray[np.float32] = x.float().cpu().numpy()
    return values
