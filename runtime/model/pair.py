"""What the two models of the pair have in common: being opened, loaded and unloaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import ClassVar, Self

from .bundle import Bundle, Role
from .loading import LoadedPart
from .ort_session import Device, SessionOptions
from .pixels import PixelBudget
from .resolve import resolve


class PairModel:
    """The embedder or the reranker of a bundle. Made by `open`; graphs load on first use."""

    role: ClassVar[Role]

    def __init__(self, bundle: Bundle, options: SessionOptions, *, pixels: PixelBudget | None = None) -> None:
        self._loaded = LoadedPart(bundle, self.role, options, pixels=pixels)

    @classmethod
    def open(
        cls,
        model: str | Path,
        *,
        device: Device = "cpu",
        threads: int | None = None,
        precision: str | None = None,
        pixels: PixelBudget | None = None,
        progress: Callable[[str, float], None] | None = None,
    ) -> Self:
        """Open a model by name ("tiny", "2b", "8b"), Hugging Face id, checkpoint folder or bundle folder.

        Args:
            model: what to open; a checkpoint is exported once into the cache.
            device: "cpu" or "cuda"; CUDA that cannot be had is an error.
            threads: threads of one graph run; None uses every core that this process may use.
            precision: of the exported weights ("fp32", "fp16"); None is the default of `resolve`. A bundle
                folder has its own.
            pixels: pixel budget instead of the checkpoint's; see `PixelBudget`.
            progress: told a step's name and its fraction done while a checkpoint is fetched and exported.

        Raises:
            ModelNotFoundError, CheckpointError, BundleError: the model cannot be had.
        """
        bundle = resolve(model, precision=precision, device=device, progress=progress)
        return cls(bundle, SessionOptions(device=device, threads=threads), pixels=pixels)

    @property
    def bundle(self) -> Bundle:
        """The bundle that is in use."""
        return self._loaded.bundle

    @property
    def budget(self) -> PixelBudget:
        """The pixel budget in force."""
        return self._loaded.budget

    def unload(self) -> None:
        """Free the graphs' memory; the next use loads them again."""
        self._loaded.unload()
