"""The oracle of the model tests: transformers and its Qwen3-VL processors, on real checkpoints.

`TorchVision` and `TorchDecoder` run the two graphs' contracts on transformers' own modules, so that host code
is tested apart from the exported graphs.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from qvl_local.runtime.model.config import load_config
from qvl_local.runtime.model.encoder import Encoder
from qvl_local.runtime.model.pixels import load_budget
from qvl_local.runtime.model.processor import Processor
from torch.nn import functional

TINY = Path(__file__).parents[3] / "models" / "tiny"
RERANKING_SYSTEM = (
    "Judge whether the Document meets the requirements based on the Query and the Instruct provided. "
    'Note that the answer can only be "yes" or "no".'
)

torch.set_num_threads(1)


class Oracle:
    """A checkpoint folder under transformers, in float32. Frames are lists of (uint8 [F, h, w, 3], fps)."""

    def __init__(self, folder: Path) -> None:
        from transformers import Qwen3VLForConditionalGeneration, Qwen3VLProcessor
        from transformers.utils import logging

        self.folder = folder
        logging.disable_progress_bar()
        full, report = Qwen3VLForConditionalGeneration.from_pretrained(
            folder, dtype=torch.float32, output_loading_info=True
        )
        # Names under another prefix leave weights random with no more than a warning.
        missing = [name for name in report["missing_keys"] if name != "lm_head.weight"]
        assert not missing, missing
        self.full = full.eval()
        self.model = full.model
        self.processor = Qwen3VLProcessor.from_pretrained(folder)

    def embedding_conversation(
        self,
        *,
        texts: Any = (),
        images: int = 0,
        videos: int = 0,
        instruction: str = "Represent the user's input.",
    ) -> list[dict[str, Any]]:
        return [
            {"role": "system", "content": [{"type": "text", "text": instruction}]},
            {"role": "user", "content": self._content(texts, images, videos)},
        ]

    def reranking_conversation(self, query: Any, document: Any, instruction: str | None = None) -> list[Any]:
        instruct = instruction or "Given a search query, retrieve relevant candidates that answer the query."
        return [
            {"role": "system", "content": [{"type": "text", "text": RERANKING_SYSTEM}]},
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "<Instruct>: " + instruct},
                    {"type": "text", "text": "<Query>:"},
                    *self._content(*query),
                    {"type": "text", "text": "\n<Document>:"},
                    *self._content(*document),
                ],
            },
        ]

    def inputs(self, conversation: list[Any], *, images: Any = (), films: Any = ()) -> dict[str, Any]:
        """What the Hugging Face processor makes of a conversation."""
        from transformers.video_utils import VideoMetadata

        text = self.processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
        extra: dict[str, Any] = {}
        if films:
            extra["videos"] = [torch.from_numpy(frames.copy()).permute(0, 3, 1, 2) for frames, _ in films]
            extra["video_metadata"] = [
                VideoMetadata(
                    total_num_frames=len(frames),
                    fps=fps,
                    duration=len(frames) / fps,
                    frames_indices=list(range(len(frames))),
                    height=frames.shape[1],
                    width=frames.shape[2],
                )
                for frames, fps in films
            ]
            extra["do_sample_frames"] = False
        if images:
            extra["images"] = [
                Image.fromarray(image) if isinstance(image, np.ndarray) else image for image in images
            ]
        made = self.processor(text=[text], return_tensors="pt", **extra)
        return {key: value for key, value in made.items() if key != "video_metadata"}

    def pooled(self, conversation: list[Any], *, images: Any = (), films: Any = ()) -> NDArray[np.float32]:
        """Last token's state, float32 [H]."""
        inputs = self.inputs(conversation, images=images, films=films)
        with torch.no_grad():
            self.model.rope_deltas = None
            return self.model(**inputs, use_cache=False).last_hidden_state[0, -1].numpy()

    def logit(self, conversation: list[Any], *, images: Any = (), films: Any = ()) -> float:
        """(W_yes - W_no) times the last token's state."""
        vocabulary = self.processor.tokenizer.get_vocab()
        head = self.full.lm_head.weight.detach()
        difference = (head[vocabulary["yes"]] - head[vocabulary["no"]]).numpy()
        return float(self.pooled(conversation, images=images, films=films) @ difference)

    @staticmethod
    def _content(texts: Any = (), images: int = 0, videos: int = 0) -> list[dict[str, str]]:
        content = [
            *({"type": "video", "video": ""} for _ in range(videos)),
            *({"type": "image", "image": ""} for _ in range(images)),
            *({"type": "text", "text": text} for text in texts),
        ]
        return content or [{"type": "text", "text": "NULL"}]


def _rotate(x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
    first, second = x.chunk(2, -1)
    return torch.cat([first * cos - second * sin, second * cos + first * sin], -1)


class TorchVision:
    """The contract of the vision graph, on transformers' modules."""

    def __init__(self, model: Any) -> None:
        self._tower = model.visual
        self.calls: list[tuple[int, ...]] = []

    @torch.no_grad()
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        tower = self._tower
        self.calls.append(feeds["patches"].shape)
        patches, index, weight, cos, sin = (
            torch.from_numpy(np.array(feeds[name])) for name in ("patches", "pos_idx", "pos_w", "cos", "sin")
        )
        count, length, _ = patches.shape
        embed = tower.patch_embed.proj
        x = functional.linear(patches, embed.weight.flatten(1), embed.bias)
        x = x + (tower.pos_embed(index) * weight[..., None]).sum(1)
        deepstack = []
        for i, block in enumerate(tower.blocks):
            attention = block.attn
            qkv = attention.qkv(block.norm1(x)).reshape(count, length, 3, attention.num_heads, -1)
            q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(_rotate(q, cos, sin), _rotate(k, cos, sin), v)
            x = x + attention.proj(mixed.transpose(1, 2).reshape(count, length, -1))
            x = x + block.mlp(block.norm2(x))
            if i in tower.deepstack_visual_indexes:
                merger = tower.deepstack_merger_list[tower.deepstack_visual_indexes.index(i)]
                deepstack.append(merger(x.reshape(count * length, -1)).reshape(count, length // 4, -1))
        main = tower.merger(x.reshape(count * length, -1)).reshape(count, length // 4, -1)
        return {"features": main.numpy(), "deepstack": torch.stack(deepstack).numpy()}


class TorchDecoder:
    """The contract of the decoder graph, on transformers' modules."""

    def __init__(self, model: Any) -> None:
        self._decoder = model.language_model
        self.calls: list[tuple[int, ...]] = []

    @torch.no_grad()
    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[np.float32]]:
        self.calls.append(feeds["embeds"].shape)
        x, cos, sin, deepstack, last = (
            torch.from_numpy(np.array(feeds[name])) for name in ("embeds", "cos", "sin", "deepstack", "last")
        )
        count, length, _ = x.shape
        cos, sin = cos[:, None], sin[:, None]
        for i, layer in enumerate(self._decoder.layers):
            attention = layer.self_attn
            y = layer.input_layernorm(x)
            shape = (count, length, -1, attention.head_dim)
            q = attention.q_norm(attention.q_proj(y).view(shape)).transpose(1, 2)
            k = attention.k_norm(attention.k_proj(y).view(shape)).transpose(1, 2)
            v = attention.v_proj(y).view(shape).transpose(1, 2)
            mixed = functional.scaled_dot_product_attention(
                _rotate(q, cos, sin), _rotate(k, cos, sin), v, is_causal=True, enable_gqa=True
            )
            x = x + attention.o_proj(mixed.transpose(1, 2).reshape(count, length, -1))
            x = x + layer.mlp(layer.post_attention_layernorm(x))
            if i < len(deepstack):
                x = x + deepstack[i]
        x = x[torch.arange(count), last]
        return {"pooled": self._decoder.norm(x).numpy()}


class Host:
    """This package's host code around the torch graphs of an oracle's checkpoint."""

    def __init__(self, oracle: Oracle, role: Any) -> None:
        self.config = load_config(oracle.folder)
        self.budget = load_budget(oracle.folder)
        self.processor = Processor(oracle.folder, self.config, self.budget, role=role)
        self.vision = TorchVision(oracle.model)
        self.decoder = TorchDecoder(oracle.model)
        table = oracle.model.language_model.embed_tokens.weight.detach().numpy()
        self.encoder = Encoder(
            self.config, self.budget, table, vision=lambda: self.vision, decoder=lambda: self.decoder
        )


def random_checkpoint(folder: Path, *, seed: int = 0, tied: bool = True, **shape: Any) -> Path:
    """A small checkpoint with random weights; `shape` replaces entries of tiny's config."""
    from transformers import Qwen3VLConfig, Qwen3VLForConditionalGeneration

    raw = json.loads((TINY / "embedding" / "config.json").read_text(encoding="utf-8"))
    for key, value in shape.items():
        part, name = ("vision_config", key[7:]) if key.startswith("vision_") else ("text_config", key)
        raw[part][name] = value
    raw["vision_config"]["out_hidden_size"] = raw["text_config"]["hidden_size"]
    raw["tie_word_embeddings"] = raw["text_config"]["tie_word_embeddings"] = tied
    folder.mkdir(parents=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(TINY / "embedding" / name, folder)
    for name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        shutil.copy(TINY / "embedding" / name, folder)
    torch.manual_seed(seed)
    model = Qwen3VLForConditionalGeneration(Qwen3VLConfig(**raw)).eval().float()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:
                weight.copy_(torch.randn_like(weight) * (1.2 / weight.shape[1:].numel() ** 0.5))
            elif "norm" in name and name.endswith("weight"):
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
            else:
                weight.copy_(0.1 * torch.randn_like(weight))
        embed = model.model.language_model.embed_tokens.weight
        embed.copy_(torch.randn_like(embed) * 0.3)
        model.tie_weights()
    model.save_pretrained(folder)
    # As the published checkpoints say it: transformers saves whichever dialect it speaks itself.
    (folder / "config.json").write_text(json.dumps(raw), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def tiny_embedding() -> Oracle:
    return Oracle(TINY / "embedding")


@pytest.fixture(scope="session")
def tiny_reranker() -> Oracle:
    return Oracle(TINY / "reranker")


@pytest.fixture(scope="session")
def embedding_host(tiny_embedding: Oracle) -> Host:
    return Host(tiny_embedding, "embedder")


@pytest.fixture(scope="session")
def reranking_host(tiny_reranker: Oracle) -> Host:
    return Host(tiny_reranker, "reranker")


@pytest.fixture(scope="session")
def oracle_of() -> Callable[[Path], Oracle]:
    return Oracle


@pytest.fixture(scope="session")
def host_of() -> Callable[..., Host]:
    return Host


@pytest.fixture(scope="session")
def make_checkpoint() -> Callable[..., Path]:
    return random_checkpoint


@pytest.fixture
def picture() -> Callable[..., NDArray[np.uint8]]:
    """Pictures with structure at every scale: a gradient, rectangles, some noise. uint8 [h, w, 3]."""

    def make(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        generator = np.random.default_rng(seed)
        rows = np.linspace(0, 200, height)[:, None, None]
        columns = np.linspace(0, 55, width)[None, :, None]
        pixels = np.broadcast_to(rows + columns, (height, width, 3)).copy()
        for _ in range(6):
            y, x = generator.integers(0, height), generator.integers(0, width)
            pixels[y : y + height // 3 + 1, x : x + width // 4 + 1] = generator.integers(0, 256, 3)
        pixels += generator.normal(0, 12, pixels.shape)
        return np.clip(pixels, 0, 255).astype(np.uint8)

    return make


@pytest.fixture
def clip(picture: Callable[..., NDArray[np.uint8]]) -> Callable[..., NDArray[np.uint8]]:
    """Films whose content moves. uint8 [F, h, w, 3]."""

    def make(frames: int, height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
        still = picture(height, width, seed)
        return np.stack([np.roll(still, 7 * i, axis=1) for i in range(frames)])

    return make


@pytest.fixture
def tiny_folder() -> Path:
    return TINY
