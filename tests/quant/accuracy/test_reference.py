"""What a bundle is compared with when nobody says: fp32 of the same checkpoints, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from qvl_local.quant.accuracy.reference import choose_reference, is_tiny, same_sources
from qvl_local.runtime.errors import InputError, ModelError
from qvl_local.runtime.model.bundle import Bundle, Manifest, Part, Role, Source, Table

TINY = Path(__file__).resolve().parents[3] / "models" / "tiny"


def bundle(folder: str, precision: str, *, sha256: str = "a", name: str = "tiny/embedding") -> Bundle:
    """A manifest without files: choosing a reference looks at nothing else."""
    table = Table("table.bin", "float16", 10, 256)
    part = Part(Source(name, None, sha256), ".", "v.onnx", "d.onnx", table, precision, precision, 256)
    parts: dict[Role, Part] = {"embedder": part}
    return Bundle(Path("/bundles") / folder, Manifest("ort", "test", parts, {}))


def test_what_is_named_wins() -> None:
    named = bundle("named", "fp16")
    assert choose_reference([bundle("a", "nf4"), bundle("b", "fp32")], named=named) is named


def test_fp32_among_the_bundles_is_the_reference() -> None:
    exact = bundle("b", "fp32")
    assert choose_reference([bundle("a", "nf4"), exact]) is exact


def test_bundles_of_different_checkpoints_need_one_to_be_named() -> None:
    bundles = [bundle("a", "nf4"), bundle("b", "fp32", sha256="b")]
    assert not same_sources(*bundles)
    with pytest.raises(InputError, match="--against"):
        choose_reference(bundles)


def test_a_checkpoint_that_is_gone_is_said_to_be(tmp_path: Path) -> None:
    gone = str(tmp_path / "gone")
    with pytest.raises(ModelError) as caught:
        choose_reference([bundle("a", "nf4", name=gone)])
    assert gone in str(caught.value)
    assert "--against" in str(caught.value)


def test_a_checkpoint_that_has_changed_is_no_reference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QVL_CACHE_DIR", str(tmp_path))
    with pytest.raises(InputError, match="another version"):
        choose_reference([bundle("a", "nf4", sha256="of another day")])


def test_tiny_is_known_by_name_and_by_place() -> None:
    assert is_tiny(bundle("a", "nf4"))
    assert is_tiny(bundle("a", "nf4", name=str(TINY / "embedding")))
    assert not is_tiny(bundle("a", "nf4", name="Qwen/Qwen3-VL-Embedding-2B"))
    assert not is_tiny(bundle("a", "nf4", name=str(TINY / "reranker")))
