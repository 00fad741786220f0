"""`open_engine`: a Hugging Face checkpoint under torch, as an `Engine` of the runtime.

Registered as "torch" in the entry point group `qvl_local.backends`. Importing this module costs nothing:
torch, transformers and bitsandbytes come in when a checkpoint is opened.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from qvl_local.runtime.errors import InputError, MissingExtraError, ModelError, ModelMemoryError
from qvl_local.runtime.machine import installed_version
from qvl_local.runtime.model.bundle import Bundle, FileRecord, Manifest, Part, Role, Source, Table
from qvl_local.runtime.model.checkpoints import Checkpoint
from qvl_local.runtime.model.config import load_config
from qvl_local.runtime.model.fusion_weight import read_fusion
from qvl_local.runtime.model.ort_session import SessionOptions
from qvl_local.runtime.model.storage import remembered_sha256

if TYPE_CHECKING:
    import torch

    from .session import DecoderSession, VisionSession
    from .weights import MappedRows

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "nf4")
_THROUGH_BITSANDBYTES = ("int8", "nf4")
# What a vector depends on; the chat template and the pixels are told apart by themselves.
_DESCRIBED = ("config.json", "tokenizer.json", "*.safetensors")


def open_engine(
    checkpoint: Checkpoint, role: Role, *, precision: str | None, options: SessionOptions
) -> TorchEngine:
    """Open a checkpoint; its weights load on first use.

    Args:
        checkpoint: the folder, and what its user calls it.
        role: whether it is the embedder or the reranker.
        precision: fp32, fp16, bf16, or int8 (LLM.int8) and nf4 by bitsandbytes; None is bf16 on CUDA and fp32
            on the CPU. With nf4 the vision tower stays bf16.
        options: device and threads; torch has one number of threads for the whole process.

    Raises:
        InputError: another precision.
        MissingExtraError: torch, transformers, accelerate or bitsandbytes is not installed.
        ModelError: CUDA was asked for and cannot be had.
        CheckpointError: the folder's small files cannot be used.
    """
    chosen = precision or ("bf16" if options.device == "cuda" else "fp32")
    if chosen not in PRECISIONS:
        raise InputError(
            f"The torch backend has no precision {chosen!r}: it runs {', '.join(PRECISIONS)}. "
            "Choose one of them, or the backend onnx."
        )
    needed = ["torch", "transformers", "accelerate"]
    if chosen in _THROUGH_BITSANDBYTES:
        needed.append("bitsandbytes")
    for package in needed:
        if find_spec(package) is None:
            raise MissingExtraError(package, "torch")
    return TorchEngine(checkpoint, role, precision=chosen, options=options)


class TorchEngine:
    """One checkpoint and, once they are needed, its two towers on a device; see `Engine`."""

    def __init__(
        self, checkpoint: Checkpoint, role: Role, *, precision: str, options: SessionOptions
    ) -> None:
        """Use `open_engine`."""
        from .weights import EMBEDDINGS, MappedWeights, read_answer_head

        folder = self._folder = checkpoint.path
        self._precision = precision
        self._device = _device(options)
        self._lock = threading.Lock()
        self._sessions: tuple[VisionSession, DecoderSession] | None = None
        self.bundle = describe(checkpoint, role, precision=precision)
        self._weights = MappedWeights(folder)
        self.table: MappedRows = self._weights.rows(EMBEDDINGS)
        self.head: NDArray[np.float32] | None = None
        if role == "reranker":
            tied = load_config(folder).text.tied_head
            self.head = read_answer_head(self._weights, folder, tied=tied)

    def vision(self) -> VisionSession:
        """The vision tower."""
        return self._loaded()[0]

    def decoder(self) -> DecoderSession:
        """The decoder."""
        return self._loaded()[1]

    def unload(self) -> None:
        """Give the weights' memory back; the next use loads them again."""
        with self._lock:
            self._sessions = None
        if self._device.type == "cuda":
            import torch

            torch.cuda.empty_cache()

    def _loaded(self) -> tuple[VisionSession, DecoderSession]:
        from .load import load_towers
        from .memory import is_out_of_memory
        from .session import DecoderSession, VisionSession

        with self._lock:
            if self._sessions is None:
                try:
                    towers = load_towers(
                        self._folder, self._weights, precision=self._precision, device=self._device
                    )
                except (RuntimeError, MemoryError) as error:
                    if not is_out_of_memory(error):
                        raise
                    raise ModelMemoryError(
                        f"{self._folder}: the weights do not fit into the memory of {self._device} as "
                        f"{self._precision}. Choose nf4, a smaller model, or the device cpu."
                    ) from error
                self._sessions = (
                    VisionSession(towers, self._device),
                    DecoderSession(towers, self._device),
                )
            return self._sessions


def describe(checkpoint: Checkpoint, role: Role, *, precision: str) -> Bundle:
    """A manifest for a checkpoint that is run as it lies.

    Its flavour and precision keep its vectors apart from those of an exported bundle.
    """
    folder = checkpoint.path
    text = load_config(folder).text
    files = {
        file.relative_to(folder).as_posix(): FileRecord(
            size=file.stat().st_size, sha256=remembered_sha256(file)
        )
        for pattern in _DESCRIBED
        for file in sorted(folder.glob(pattern))
    }
    part = Part(
        source=Source(name=checkpoint.name, revision=checkpoint.revision, sha256=_digest(files)),
        folder=".",
        vision=".",
        decoder=".",
        table=Table(file=".", dtype="float32", rows=text.vocab_size, columns=text.hidden_size),
        vision_precision="bf16" if precision == "nf4" else precision,
        decoder_precision=precision,
        dims=text.hidden_size,
    )
    manifest = Manifest(
        flavour="torch",
        created_by=f"qvl-local {installed_version() or 'unknown'}",
        parts={role: part},
        files=files,
        fusion=read_fusion(folder) if role == "reranker" else {},
    )
    return Bundle(path=folder, manifest=manifest)


def _digest(files: Mapping[str, FileRecord]) -> str:
    """Hash of the configuration and the weights, which make a vector what it is."""
    facts = [[name, record.sha256] for name, record in sorted(files.items()) if name != "tokenizer.json"]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


def _device(options: SessionOptions) -> torch.device:
    """The device; CUDA that cannot be had is an error, never a silent run on the CPU."""
    import torch

    if options.threads is not None:
        torch.set_num_threads(options.threads)
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ModelError(
            f"The device cuda was asked for, but torch {torch.__version__} finds no CUDA device. "
            "Check the driver and that this torch is a CUDA build (python -m torch.utils.collect_env), "
            "or choose the device cpu."
        )
    return torch.device(options.device)
