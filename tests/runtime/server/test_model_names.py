"""What served models go by."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from qvl_local.runtime.errors import ModelNotFoundError, PartError
from qvl_local.runtime.server.model_names import chosen, names_of


def test_the_model_that_comes_with_it() -> None:
    embedder, reranker = names_of("tiny")
    assert (embedder.id, reranker.id) == ("tiny/embedding", "tiny/reranker")
    assert all(embedder.has(name) for name in ("tiny", "Tiny", "tiny/embedding", "embedding"))
    assert all(reranker.has(name) for name in ("tiny", "tiny/reranker"))
    assert not embedder.has("tiny/reranker")


@pytest.mark.parametrize(
    "name",
    ["2b", "Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Reranker-2B", "Qwen/Qwen3-VL-Embedding-2B@main"],
)
def test_models_of_the_hub_go_by_short_name_and_id(name: str) -> None:
    embedder, reranker = names_of(name)
    assert (embedder.id, reranker.id) == ("Qwen/Qwen3-VL-Embedding-2B", "Qwen/Qwen3-VL-Reranker-2B")
    assert all(embedder.has(one) for one in ("2b", "Qwen3-VL-Embedding-2B", "qwen/qwen3-vl-embedding-2b"))
    assert reranker.has("Qwen3-VL-Reranker-2B")
    assert not embedder.has("8b")


def test_a_bundle_goes_by_what_it_was_made_of(tiny_bundle: str, tmp_path: Path) -> None:
    folder = tmp_path / "my bundle"
    shutil.copytree(tiny_bundle, folder)
    embedder, reranker = names_of(str(folder))
    assert (embedder.id, reranker.id) == ("tiny/embedding", "tiny/reranker")
    assert all(names.has("my bundle") and names.has("tiny") for names in (embedder, reranker))


def test_no_name_tells_where_a_model_lies(tiny: dict[str, Path], tmp_path: Path) -> None:
    folder = tmp_path / "Mine-Embedding"
    shutil.copytree(tiny["embedder"], folder)
    (alone,) = names_of(str(folder))
    assert (alone.id, alone.role) == ("Mine-Embedding", "embedder")
    shutil.copytree(tiny["reranker"], tmp_path / "Mine-Reranker")
    pair = names_of(str(folder))
    assert [names.id for names in pair] == ["Mine-Embedding", "Mine-Reranker"]
    assert not any(str(tmp_path) in name for names in pair for name in (names.id, *names.aliases))


@pytest.mark.parametrize("model", ["/no/such/folder", "no such model"])
def test_a_model_that_is_gone_is_said_without_its_place(model: str) -> None:
    with pytest.raises(ModelNotFoundError) as caught:
        names_of(model)
    assert "/no/such" not in str(caught.value)


def test_the_other_models_name_is_told_from_an_unknown_one() -> None:
    served = names_of("tiny")
    assert chosen(None, "embedder", served).id == "tiny/embedding"
    assert chosen("tiny", "reranker", served).id == "tiny/reranker"
    with pytest.raises(PartError, match="answers at /v1/embeddings"):
        chosen("tiny/embedding", "reranker", served)
    with pytest.raises(ModelNotFoundError, match="tiny/embedding, tiny/reranker"):
        chosen("gpt-4", "embedder", served)
    with pytest.raises(ModelNotFoundError, match="No reranker"):
        chosen(None, "reranker", served[:1])
