"""What the two models of the pair have in common: being opened, loaded and unloaded."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Self

from .backends import BackendName, open_engine
from .bundle import Bundle, Role
from .loading import LoadedPart
from .ort_providers import Device
from .ort_session import SessionOptions
from .pixels import PixelBudget
from .session import Engine

if TYPE_CHECKING:
    from .precedence import Precedence
    from .session import Interruption


class PairModel:
    """The embedder or the reranker. Made by `open`; graphs and weights load on first use."""

    role: ClassVar[Role]

    def __init__(self, engine: Engine, *, pixels: PixelBudget | None = None) -> None:
        self._loaded = LoadedPart(engine, self.role, pixels=pixels)

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        backend: BackendName = "onnx",
        device: Device = "cpu",
        threads: int | None = None,
        precision: str | None = None,
        pixels: PixelBudget | None = None,
        brief: bool = False,
        progress: Callable[[str, float], None] | None = None,
    ) -> Self:
        """Open a model by name ("tiny", "2b", "8b"), Hugging Face id, checkpoint folder or bundle folder.

        Args:
            model: what to open; a checkpoint is exported once into the cache, unless torch runs it.
            backend: "onnx" runs exported bundles with ONNX Runtime; "tensorrt" runs the engines that were
                built of a bundle for this machine's GPU; "torch" runs checkpoints as they lie. The last two
                need the extras of their names.
            device: "cpu", "cuda" or "tensorrt" (ONNX Runtime's provider, for portable bundles); one that
                cannot be had is an error.
            threads: threads of one graph run; None uses every core that this process may use.
            precision: of the weights. For ONNX what a checkpoint is exported at: "fp32", "fp16", "int8",
                "int8-weight", "int4", "nf4" or "int8-dynamic"; None is the default of `resolve`, and a bundle
                folder, which TensorRT's engines always come from, has its own. For torch "fp32", "fp16",
                "bf16", "int8", "nf4"; None is bf16 on CUDA, fp32 on the CPU.
            pixels: pixel budget instead of the checkpoint's; see `PixelBudget`.
            brief: this process runs the model a few times and ends: ONNX Runtime then loads float32 weights
                faster, and each run takes a little longer. Results are the same to rounding.
            progress: told a step's name and its fraction done while a checkpoint is fetched and exported.

        Raises:
            ModelNotFoundError, CheckpointError, BundleError: the model cannot be had.
            InputError: an unknown backend, device or precision.
            MissingExtraError: the backend needs an extra that is not installed.
        """
        engine = open_engine(
            model,
            cls.role,
            backend=backend,
            precision=precision,
            options=SessionOptions(device=device, threads=threads, brief=brief),
            progress=progress,
        )
        return cls(engine, pixels=pixels)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is in use, or what describes the checkpoint that is."""
        return self._loaded.bundle

    @property
    def budget(self) -> PixelBudget:
        """The pixel budget in force."""
        return self._loaded.budget

    def shortened(self, text: str, *, tokens: int) -> str:
        """The beginning of a text that takes at most so many tokens."""
        return self._loaded.processor.shortened(text, tokens=tokens)

    def behind(self, precedence: Precedence) -> Self:
        """The same model, for work in the background: its runs let searches go first.

        Graphs and weights are shared; `load` and `unload` are for both.
        """
        from .precedence import YieldingEngine

        other = copy.copy(self)
        other._loaded = self._loaded.on_engine(YieldingEngine(self._loaded.engine, precedence))
        return other

    def until(self, stop: Interruption) -> Self:
        """The same model, for work that raises StoppedError once `stop` is set; shared as by `behind`."""
        from .stoppable import StoppableEngine

        other = copy.copy(self)
        other._loaded = self._loaded.on_engine(StoppableEngine(self._loaded.engine, stop))
        return other

    def load(self) -> None:
        """Load the graphs now instead of on first use: in a thread, while there is other work to do.

        Raises:
            BundleError, ModelError: a graph cannot be loaded.
        """
        self._loaded.load()

    def unload(self) -> None:
        """Free the graphs' memory; the next use loads them again."""
        self._loaded.engine.unload()
