"""One model of a bundle under ONNX Runtime: its two graphs, token table and head."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, Role
from .encoder import open_table
from .graph_pool import Lease
from .head import open_head
from .ort_session import SessionOptions
from .session import Array, Interruptible, Interruption, Rows, Session


class SwitchedSession:
    """A decoder that serves two models, set to one of them: every run feeds its `adapter`."""

    def __init__(self, session: Session, adapter: float) -> None:
        self._session = session
        self._adapter = np.array([adapter], np.float32)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once; see `Session`."""
        return self._session.run({**feeds, "adapter": self._adapter})

    def run_until(
        self, interruption: Interruption, feeds: Mapping[str, Array]
    ) -> dict[str, NDArray[np.float32]] | None:
        """Run the graph once; see `Interruptible`. A session that cannot end early runs to its end."""
        switched = {**feeds, "adapter": self._adapter}
        if isinstance(self._session, Interruptible):
            return self._session.run_until(interruption, switched)
        return self._session.run(switched)


class OrtEngine:
    """The embedder or the reranker of a bundle; see `Engine`."""

    def __init__(self, bundle: Bundle, role: Role, options: SessionOptions) -> None:
        """Map the table; graphs load when they are first needed.

        Raises:
            BundleError: the bundle holds no such part, or its table or head is damaged.
        """
        part = bundle.part(role)
        self.bundle = bundle
        self.table: Rows = open_table(bundle, role)
        self.head: NDArray[np.float32] | None = open_head(bundle) if role == "reranker" else None
        self._adapter = part.adapter
        self._vision = Lease(bundle.file(part.vision), _suited(options, part.vision_precision))
        self._decoder = Lease(bundle.file(part.decoder), _suited(options, part.decoder_precision))

    def vision(self) -> Session:
        """The vision tower."""
        return self._vision()

    def decoder(self) -> Session:
        """The decoder."""
        session = self._decoder()
        return session if self._adapter is None else SwitchedSession(session, self._adapter)

    def unload(self) -> None:
        """Free both graphs, unless the other model of the pair is using them."""
        self._vision.drop()
        self._decoder.drop()


def _suited(options: SessionOptions, precision: str) -> SessionOptions:
    """Brief for float32 alone: quantized weights as they lie go through other kernels, to other results."""
    return options if precision == "fp32" else replace(options, brief=False)
