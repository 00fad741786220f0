"""Checkpoints through torch, end to end: vectors and scores of the ONNX bundle, precisions, spaces."""

from __future__ import annotations

import importlib.util
import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import bitsandbytes
import numpy as np
import pytest
import torch
from PIL import Image
from qvl_local.desktop.cli import run
from qvl_local.quant.torch_backend.engine import PRECISIONS, open_engine
from qvl_local.runtime import Embedder, Library, Reranker
from qvl_local.runtime.errors import (
    InputError,
    LibraryError,
    MissingExtraError,
    ModelError,
    ModelMemoryError,
    ModelNotFoundError,
)
from qvl_local.runtime.library.indexer import IndexSettings
from qvl_local.runtime.library.workers import WorkerSettings
from qvl_local.runtime.model.checkpoints import Checkpoint
from qvl_local.runtime.model.ort_session import SessionOptions

OPTIONS = SessionOptions(threads=1)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    """A picture with large areas and some noise, uint8 [h, w, 3]."""
    generator = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), generator.integers(40, 216, 3), np.float64)
    for _ in range(5):
        y, x = generator.integers(0, height), generator.integers(0, width)
        pixels[y : y + height // 3, x : x + width // 3] = generator.integers(0, 256, 3)
    return np.clip(pixels + generator.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)


def clip(frames: int, seed: int) -> np.ndarray:
    still = picture(72, 96, seed)
    return np.stack([np.roll(still, 9 * i, axis=1) for i in range(frames)])


INPUTS: list[dict[str, Any]] = [
    {"text": "two dogs on a beach at night"},
    {},
    {"text": "a longer query, so that rows of one batch differ", "instruction": "Find the picture."},
    {"image": picture(90, 130, 1)},
    {"image": [picture(64, 64, 2), Image.fromarray(picture(120, 50, 3))], "text": "which one?"},
    {"video": clip(7, 4), "fps": 2.0},
    {"video": clip(4, 5), "image": picture(64, 64, 6), "text": "both"},
]


@pytest.fixture(scope="module")
def onnx_vectors() -> np.ndarray:
    """What the exported fp32 bundle gives."""
    return Embedder.open("tiny", threads=1).embed(INPUTS)


@pytest.fixture(scope="module")
def torch_embedder() -> Embedder:
    return Embedder.open("tiny", backend="torch", threads=1)


def test_vectors_are_those_of_the_onnx_bundle(torch_embedder: Embedder, onnx_vectors: np.ndarray) -> None:
    together = torch_embedder.embed(INPUTS)
    assert np.abs(together - onnx_vectors).max() <= 1e-4
    alone = np.concatenate([torch_embedder.embed([one]) for one in INPUTS])
    assert np.abs(alone - onnx_vectors).max() <= 1e-4


def test_scores_are_those_of_the_onnx_bundle() -> None:
    documents = [{key: value for key, value in one.items() if key != "instruction"} for one in INPUTS]
    expected, actual = (
        Reranker.open("tiny", backend=backend, threads=1).logits({"text": "two dogs"}, documents)
        for backend in ("onnx", "torch")
    )
    assert np.abs(actual - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max())
    assert Reranker.open("tiny", backend="torch").fusion == Reranker.open("tiny").fusion


# Cosines against fp32 measured on qvl-tiny: bf16 0.99997, fp16 1.00000, int8 0.9999, nf4 0.9975.
@pytest.mark.parametrize(
    ("precision", "cosine"), [("bf16", 0.999), ("fp16", 0.9999), ("int8", 0.995), ("nf4", 0.95)]
)
def test_lower_precisions_stay_close(precision: str, cosine: float, onnx_vectors: np.ndarray) -> None:
    embedder = Embedder.open("tiny", backend="torch", precision=precision, threads=1)
    vectors = embedder.embed(INPUTS)
    assert (vectors * onnx_vectors).sum(axis=1).min() >= cosine
    assert np.abs(vectors - onnx_vectors).max() > 1e-5, "the precision changed nothing"


def test_bitsandbytes_holds_the_weights_that_a_precision_names(tiny: dict[str, Path]) -> None:
    from qvl_local.quant.torch_backend.load import load_towers
    from qvl_local.quant.torch_backend.weights import MappedWeights

    weights = MappedWeights(tiny["embedder"])
    layer, block = "layers.0.mlp.up_proj", "blocks.0.mlp.linear_fc1"
    kinds = {"nf4": bitsandbytes.nn.Linear4bit, "int8": bitsandbytes.nn.Linear8bitLt}
    for precision, kind in kinds.items():
        towers = load_towers(tiny["embedder"], weights, precision=precision, device=torch.device("cpu"))
        assert type(towers.decoder.get_submodule(layer)) is kind
        # nf4 leaves the vision tower alone
        in_vision = kind if precision == "int8" else torch.nn.Linear
        assert type(towers.vision.get_submodule(block)) is in_vision
        assert towers.decoder.get_submodule(layer).weight.element_size() == 1
        assert towers.decoder.embed_tokens.weight.shape[0] == 1, "the embeddings stay on disk"


def test_spaces_differ_by_backend_and_precision(torch_embedder: Embedder) -> None:
    spaces = [Embedder.open("tiny").space, torch_embedder.space]
    spaces += [Embedder.open("tiny", backend="torch", precision=p).space for p in PRECISIONS[1:]]
    identities = {json.dumps([space["bundle"], space["precision"]]) for space in spaces}
    assert len(identities) == len(spaces)
    assert len({space["bundle"] for space in spaces}) == len(spaces)
    assert spaces[-1]["precision"] == "nf4/bf16"


def test_other_weights_are_another_space(tiny: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny["embedder"], tmp_path / "embedding"))
    same = Embedder.open(folder, backend="torch").space["bundle"]
    assert same == Embedder.open("tiny", backend="torch").space["bundle"]
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    assert Embedder.open(folder, backend="torch").space["bundle"] != same


def test_unloading_gives_the_weights_back_and_the_next_use_loads_again(tiny: dict[str, Path]) -> None:
    engine = open_engine(Checkpoint(tiny["embedder"], "tiny"), "embedder", precision="fp32", options=OPTIONS)
    assert engine.head is None
    first = engine.decoder()
    assert engine.decoder() is first
    engine.unload()
    assert engine.decoder() is not first


def test_models_load_in_several_threads_at_once(torch_embedder: Embedder) -> None:
    """As a search does: the reranker loads while the embedder works."""
    query: dict[str, Any] = {"text": "two dogs"}
    expected = torch_embedder.embed([query])
    embedders = [Embedder.open("tiny", backend="torch", precision=p) for p in ("fp32", "fp32", "fp16", "nf4")]
    with ThreadPoolExecutor(4) as threads:
        vectors = list(threads.map(lambda embedder: embedder.embed([query]), embedders))
    for vector, largest in zip(vectors, (1e-5, 1e-5, 1e-2, 0.2), strict=True):
        assert np.abs(vector - expected).max() <= largest
    assert torch.get_default_dtype() == torch.float32


# ---- the library and the command line ----


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album"
    folder.mkdir()
    for seed in range(3):
        Image.fromarray(picture(96, 128, seed)).save(folder / f"{seed}.png")
    return folder


def test_a_library_is_indexed_and_searched_with_torch(album: Path, tmp_path: Path) -> None:
    home = tmp_path / "library"
    settings = IndexSettings(WorkerSettings(1))
    with Library.open(home, model="tiny", backend="torch", precision="fp32", settings=settings) as library:
        assert library.index([album]).added == 3
        hits = library.search(image=album / "1.png", limit=3, rerank_top=2).hits
        assert {Path(hit.path).name for hit in hits} == {"0.png", "1.png", "2.png"}
        assert library.similar(album / "1.png").hits
    with Library.open(home, backend="torch", precision="bf16") as other:
        with pytest.raises(LibraryError, match="as torch fp32/fp32, not as torch bf16/bf16") as caught:
            other.search("red")
        assert str(caught.value).endswith("--backend torch --precision bf16")
    with Library.open(home, backend="onnx") as onnx, pytest.raises(LibraryError, match="not as fp32/fp32"):
        onnx.search("red")
    with Library.open(home) as remembered:
        again = remembered.search(image=album / "1.png", limit=3, rerank_top=2).hits
    assert [hit.path for hit in again] == [hit.path for hit in hits]


def test_the_command_line_takes_backend_and_precision(
    album: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("QVL_LIBRARY", str(tmp_path / "library"))
    monkeypatch.setenv("QVL_BACKEND", "torch")
    assert run(["index", str(album), "--model", "tiny", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["added"] == 3
    assert run(["search", "--image", str(album / "2.png"), "--no-rerank", "-f"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == 3
    assert run(["search", "red", "--backend", "onnx"]) == 1
    assert "was indexed with tiny as torch fp32/fp32" in capfd.readouterr().err
    assert (
        run(["similar", str(album / "0.png"), "--precision", "int3"]) == 0
    )  # its vector is stored: no model
    assert run(["search", "red", "--precision", "int3"]) == 2
    assert "it runs fp32, fp16, bf16, int8, nf4" in capfd.readouterr().err


# ---- what goes wrong ----


def test_wrong_choices_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no precision 'int4': it runs fp32, fp16, bf16, int8, nf4"):
        Embedder.open("tiny", backend="torch", precision="int4")
    with pytest.raises(InputError, match=r"Unknown backend 'jax'\. Use one of: onnx, tensorrt, torch"):
        Embedder.open("tiny", backend="jax")  # type: ignore[arg-type]
    bundle = Embedder.open("tiny").bundle.path
    with pytest.raises(InputError, match="exported bundle, which the backend torch does not run"):
        Embedder.open(bundle, backend="torch")


def test_a_checkpoint_without_its_sibling_has_no_reranker(tiny: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny["embedder"], tmp_path / "alone-embedding"))
    with pytest.raises(ModelNotFoundError, match="no reranker"):
        Reranker.open(folder, backend="torch")


@pytest.mark.parametrize("package", ["torch", "transformers", "accelerate", "bitsandbytes"])
def test_a_missing_extra_names_the_command(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = importlib.util.find_spec
    monkeypatch.setattr(
        "qvl_local.quant.torch_backend.engine.find_spec",
        lambda name: None if name == package else found(name),
    )
    with pytest.raises(MissingExtraError, match=rf"{package} is not .* pip install 'qvl-local\[torch\]'"):
        Embedder.open("tiny", backend="torch", precision="nf4")


def test_cuda_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="finds no CUDA device"):
        Embedder.open("tiny", backend="torch", device="cuda")


def test_weights_that_do_not_fit_are_told_apart(
    tiny: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_args: Any, **_options: Any) -> Any:
        return torch.empty(1 << 46)

    monkeypatch.setattr("qvl_local.quant.torch_backend.load.load_towers", full)
    embedder = Embedder.open("tiny", backend="torch")
    with pytest.raises(ModelMemoryError, match="the weights do not fit into the memory of cpu as fp32"):
        embedder.embed([{}])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    ("precision", "cosine"), [("fp32", 0.9999), ("bf16", 0.999), ("int8", 0.995), ("nf4", 0.95)]
)
def test_a_gpu_gives_the_same_vectors(precision: str, cosine: float, onnx_vectors: np.ndarray) -> None:
    embedder = Embedder.open("tiny", backend="torch", device="cuda", precision=precision)
    assert (embedder.embed(INPUTS) * onnx_vectors).sum(axis=1).min() >= cosine
