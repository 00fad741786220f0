"""Checkpoints for every test: qvl-tiny, and random ones of other shapes, with transformers as the oracle."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from numpy.typing import NDArray

TINY = Path(__file__).resolve().parents[1] / "models" / "tiny"
_DTYPES = {"float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
_PROCESSOR_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "preprocessor_config.json",
    "video_preprocessor_config.json",
)


def pytest_configure() -> None:
    """Let tests press Ctrl-C: a shell that starts pytest in the background has it ignored from there on.

    And no test is timed, those with examples neither: a busy machine is no failure.
    """
    settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("untimed")
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """In CI a skipped test is a failed one, unless it needs a GPU: what is not run is not known to work."""
    report = yield
    if os.environ.get("CI") and report.skipped and item.get_closest_marker("gpu") is None:
        report.outcome = "failed"
        report.longrepr = f"skipped, which CI does not accept: {report.longrepr}"
    return report


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or fills the user's cache; what one test exports, the others find."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("QVL_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="session")
def tiny() -> dict[str, Path]:
    """qvl-tiny's two checkpoint folders, by role."""
    return {"embedder": TINY / "embedding", "reranker": TINY / "reranker"}


@pytest.fixture(scope="session")
def random_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A maker of checkpoint folders with random weights; the same arguments give the same folder.

    random_checkpoint(role="embedder", hidden=64, layers=3, heads=4, kv_heads=2, head_dim=32,
        intermediate=96, vision_hidden=48, vision_depth=3, vision_heads=2, vision_intermediate=80,
        deepstack=(0, 2), grid_side=8, tied=True, dtype="float32", seed=0, prefix="model.", shards=1,
        rope="4.57") -> Path

    `role` chooses whose tokenizer it carries. `prefix` leads every tensor name but the head's. `rope` "5"
    writes transformers 5's dialect of config.json. Do not change the folder: copy it.
    """
    made: dict[str, Path] = {}

    def make(**options: Any) -> Path:
        key = json.dumps(options, sort_keys=True)
        if key not in made:
            made[key] = tmp_path_factory.mktemp("checkpoint")
            write_checkpoint(made[key], **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def oracle() -> Callable[[Path], Any]:
    """Loads a checkpoint folder as transformers' model in float32, and keeps it for the session."""
    loaded: dict[Path, Any] = {}

    def load(folder: Path) -> Any:
        if folder not in loaded:
            loaded[folder] = load_oracle(folder)
        return loaded[folder]

    return load


def load_oracle(folder: Path) -> Any:
    """transformers' model, after making sure that every weight came from the checkpoint."""
    import torch
    from transformers import Qwen3VLForConditionalGeneration

    model, info = Qwen3VLForConditionalGeneration.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    # A missing key only warns, and leaves the weight random.
    absent = [name for name in info["missing_keys"] if name != "lm_head.weight"]
    if absent or info["unexpected_keys"] or info["mismatched_keys"]:
        raise AssertionError(f"{folder}: the oracle did not load: {info}")
    return model.eval()


def write_checkpoint(
    folder: Path,
    *,
    role: str = "embedder",
    hidden: int = 64,
    layers: int = 3,
    heads: int = 4,
    kv_heads: int = 2,
    head_dim: int = 32,
    intermediate: int = 96,
    vision_hidden: int = 48,
    vision_depth: int = 3,
    vision_heads: int = 2,
    vision_intermediate: int = 80,
    deepstack: tuple[int, ...] = (0, 2),
    grid_side: int = 8,
    tied: bool = True,
    dtype: str = "float32",
    seed: int = 0,
    prefix: str = "model.",
    shards: int = 1,
    rope: str = "4.57",
) -> None:
    """Write one; see the fixture `random_checkpoint`."""
    source = TINY / ("reranker" if role == "reranker" else "embedding")
    for name in _PROCESSOR_FILES:
        shutil.copyfile(source / name, folder / name)
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    part = head_dim // 6
    section = [head_dim // 2 - 2 * part, part, part]
    config["tie_word_embeddings"] = tied
    config["text_config"] |= {
        "hidden_size": hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate_size": intermediate,
        "tie_word_embeddings": tied,
        "rope_scaling": {"mrope_interleaved": True, "mrope_section": section, "rope_type": "default"},
    }
    if rope == "5":
        theta = config["text_config"].pop("rope_theta")
        config["text_config"]["rope_parameters"] = config["text_config"].pop("rope_scaling") | {
            "rope_theta": theta
        }
    config["vision_config"] |= {
        "hidden_size": vision_hidden,
        "depth": vision_depth,
        "num_heads": vision_heads,
        "intermediate_size": vision_intermediate,
        "out_hidden_size": hidden,
        "deepstack_visual_indexes": list(deepstack),
        "num_position_embeddings": grid_side**2,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=2), encoding="utf-8")
    tensors = {
        name if name.startswith("lm_head") else prefix + name: values.astype(_DTYPES[dtype])
        for name, values in _random_tensors(config, tied=tied, seed=seed)
    }
    save_tensors(folder, tensors, shards=shards)


def save_tensors(folder: Path, tensors: dict[str, NDArray[Any]], *, shards: int = 1) -> None:
    """Write model.safetensors, or shards of it with an index."""
    from safetensors.numpy import save_file

    if shards == 1:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return
    names = sorted(tensors)
    weight_map = {}
    for number in range(shards):
        file = f"model-{number + 1:05d}-of-{shards:05d}.safetensors"
        chosen = names[number::shards]
        save_file({name: tensors[name] for name in chosen}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(chosen, file)
    index = {"metadata": {"total_size": sum(t.nbytes for t in tensors.values())}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")


def _random_tensors(
    config: dict[str, Any], *, tied: bool, seed: int
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """Names without the leading `model.`, and values that keep activations lively."""
    generator = np.random.default_rng(seed)
    text, vision = config["text_config"], config["vision_config"]

    def normal(*shape: int, scale: float = 1.0) -> NDArray[np.float32]:
        return generator.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def matrix(*shape: int) -> NDArray[np.float32]:
        return normal(*shape, scale=1.2 / np.prod(shape[1:]) ** 0.5)

    def linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", matrix(rows, columns)
        yield f"{name}.bias", normal(rows, scale=0.1)

    def norm(name: str, size: int) -> Iterator[tuple[str, NDArray[np.float32]]]:
        yield f"{name}.weight", 1 + normal(size, scale=0.3)
        yield f"{name}.bias", normal(size, scale=0.1)

    width, size = text["hidden_size"], text["head_dim"]
    yield "language_model.embed_tokens.weight", normal(text["vocab_size"], width)
    for layer in range(text["num_hidden_layers"]):
        at = f"language_model.layers.{layer}"
        queries, keys = text["num_attention_heads"] * size, text["num_key_value_heads"] * size
        yield f"{at}.self_attn.q_proj.weight", matrix(queries, width)
        yield f"{at}.self_attn.k_proj.weight", matrix(keys, width)
        yield f"{at}.self_attn.v_proj.weight", matrix(keys, width)
        yield f"{at}.self_attn.o_proj.weight", matrix(width, queries)
        yield f"{at}.self_attn.q_norm.weight", 1 + normal(size, scale=0.3)
        yield f"{at}.self_attn.k_norm.weight", 1 + normal(size, scale=0.3)
        yield f"{at}.mlp.gate_proj.weight", matrix(text["intermediate_size"], width)
        yield f"{at}.mlp.up_proj.weight", matrix(text["intermediate_size"], width)
        yield f"{at}.mlp.down_proj.weight", matrix(width, text["intermediate_size"])
        yield f"{at}.input_layernorm.weight", 1 + normal(width, scale=0.3)
        yield f"{at}.post_attention_layernorm.weight", 1 + normal(width, scale=0.3)
    yield "language_model.norm.weight", 1 + normal(width, scale=0.3)
    if not tied:
        yield "lm_head.weight", matrix(text["vocab_size"], width)

    inner, joined = vision["hidden_size"], vision["hidden_size"] * vision["spatial_merge_size"] ** 2
    patch = (vision["in_channels"], vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
    yield "visual.patch_embed.proj.weight", matrix(inner, *patch)
    yield "visual.patch_embed.proj.bias", normal(inner, scale=0.1)
    yield "visual.pos_embed.weight", normal(vision["num_position_embeddings"], inner, scale=0.5)
    for block in range(vision["depth"]):
        at = f"visual.blocks.{block}"
        yield from norm(f"{at}.norm1", inner)
        yield from norm(f"{at}.norm2", inner)
        yield from linear(f"{at}.attn.qkv", 3 * inner, inner)
        yield from linear(f"{at}.attn.proj", inner, inner)
        yield from linear(f"{at}.mlp.linear_fc1", vision["intermediate_size"], inner)
        yield from linear(f"{at}.mlp.linear_fc2", inner, vision["intermediate_size"])
    mergers = [f"visual.deepstack_merger_list.{i}" for i in range(len(vision["deepstack_visual_indexes"]))]
    for at in ["visual.merger", *mergers]:
        yield from norm(f"{at}.norm", inner if at == "visual.merger" else joined)
        yield from linear(f"{at}.linear_fc1", joined, joined)
        yield from linear(f"{at}.linear_fc2", width, joined)
