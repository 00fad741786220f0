"""The reranker's head: damaged files are errors that name the file, whatever the damage is."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from qvl_local.runtime.errors import BundleError
from qvl_local.runtime.model.bundle import Bundle, open_bundle
from qvl_local.runtime.model.head import open_head, sigmoid


@pytest.fixture
def bundle(tiny_bundle: str, tmp_path: Path) -> Bundle:
    """A bundle whose files are the test's own to damage; the graphs are only named."""
    source = open_bundle(Path(tiny_bundle))
    for name in [*source.manifest.files, "qvl.json"]:
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".npy", ".json")):
            shutil.copyfile(source.file(name), file)
        else:
            file.symlink_to(source.file(name))
    return open_bundle(tmp_path)


def archive(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_a_sound_head_is_as_wide_as_the_model(bundle: Bundle) -> None:
    head = open_head(bundle)
    assert (head.shape, head.dtype) == ((bundle.part("reranker").table.columns,), np.float32)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x93NUMPY",
        b"nothing",
        b"PK\x03\x04 cut short",
        archive(),
        archive(head=np.zeros(256, np.float32)),
        b"\x93NUMPY\x01\x00\x10\x00{'descr': '<f4'}",
    ],
    ids=["empty", "magic", "text", "zip", "npz", "npz-of-a-head", "header"],
)
def test_a_damaged_head_is_named(bundle: Bundle, content: bytes) -> None:
    file = bundle.file(str(bundle.part("reranker").head))
    file.write_bytes(content)
    with pytest.raises(BundleError, match=rf"{file.name}: cannot be read .* Export the bundle again"):
        open_head(bundle)


def test_a_head_of_another_width_is_named(bundle: Bundle) -> None:
    np.save(bundle.file(str(bundle.part("reranker").head)), np.zeros(7, np.float32))
    with pytest.raises(BundleError, match="holds 7 values instead of 256"):
        open_head(bundle)


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid(np.array([-1e4, 0.0, 1e4], np.float32)).tolist() == [0.0, 0.5, 1.0]
