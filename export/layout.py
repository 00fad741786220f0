"""One decoder for both models of a pair, or two: what was asked for, what is possible, and why."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from qvl_local.runtime.errors import InputError
from qvl_local.runtime.model.bundle import AdapterRecord, Layout, Role

from .adapters import BASE, SHARES, Adapters, Unshareable, find_adapters
from .checkpoint import Checkpoint
from .spool import Spool

AskedLayout = Literal["auto", "shared", "separate"]
LAYOUTS: tuple[AskedLayout, ...] = get_args(AskedLayout)


def known_layout(name: str) -> AskedLayout:
    """The layout of a name.

    Raises:
        InputError: there is none of that name.
    """
    for known in LAYOUTS:
        if name == known:
            return known
    raise InputError(f"Unknown layout {name!r}. Choose one of: {', '.join(LAYOUTS)}.")


@dataclass(frozen=True, slots=True, eq=False)
class DecoderLayout:
    """How the decoders of a bundle are laid out. `adapters` belong to a shared one, and may be none."""

    name: Layout
    adapters: Adapters | None = None
    reason: str | None = None

    def switch(self, role: Role) -> float | None:
        """What the decoder is fed to be this model; None when it has nothing to switch."""
        return SHARES[role] if self.adapters else None

    def record(self) -> AdapterRecord | None:
        """What the manifest says of the adapters."""
        if not self.adapters:
            return None
        found = list(self.adapters)
        return AdapterRecord(
            matrices=len(found),
            rank=max(adapter.rank for adapter in found),
            bytes=sum(adapter.nbytes for adapter in found),
            error=max(adapter.error for adapter in found),
            noise=max(adapter.noise for adapter in found),
        )


def choose_layout(
    checkpoints: Mapping[Role, Checkpoint],
    asked: AskedLayout,
    *,
    quantized: bool,
    spool: Spool,
    progress: Callable[[float], None] | None = None,
) -> DecoderLayout:
    """Decide how the decoders are laid out; `reason` says why "auto" does not share one.

    Args:
        checkpoints: one model, or the pair.
        asked: "auto" shares a decoder whose weights are quantized, when the difference is low-rank: there the
            memory counts, and what adapters lose is far below what quantization does.
        quantized: whether the decoder's weights are.
        spool: where adapters wait, kept open until the bundle is written.
        progress: told how far the comparison is, in [0, 1].

    Raises:
        InputError: "shared" was asked for and is not possible.
    """
    pair = len(checkpoints) == 2
    if asked == "separate" or (asked == "auto" and not (pair and quantized)):
        return DecoderLayout("separate")
    if not pair:
        raise InputError(
            "A shared layout takes an embedder and a reranker. Name both, or leave --layout out."
        )
    [other] = [role for role in checkpoints if role != BASE]
    found = find_adapters(checkpoints[BASE], checkpoints[other], spool=spool, progress=progress)
    if not isinstance(found, Unshareable):
        return DecoderLayout("shared", found)
    if asked == "shared":
        raise InputError(
            f"{checkpoints[BASE].folder} and {checkpoints[other].folder} cannot share a decoder: "
            f"{found.reason}. Export them with --layout separate."
        )
    return DecoderLayout("separate", reason=found.reason)
