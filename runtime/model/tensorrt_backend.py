"""One model of a bundle on TensorRT engines that were built for this machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..errors import ModelError
from .bundle import Bundle, Role
from .encoder import open_table
from .graph_pool import Lease
from .head import open_head
from .ort_engine import SwitchedSession
from .ort_session import SessionOptions
from .session import Rows, Session
from .tensorrt_place import EngineMachine, EnginePlace
from .tensorrt_session import TensorrtSession, import_tensorrt


class TensorrtEngine:
    """The embedder or the reranker of a bundle; see `Engine`."""

    def __init__(self, bundle: Bundle, role: Role, options: SessionOptions) -> None:
        """Find the engines and map the table; engines load when they are first needed.

        Raises:
            MissingExtraError: TensorRT is not installed.
            ModelError: there is no card, or no engine was built for it.
            BundleError: the bundle holds no such part, or is damaged.
        """
        part = bundle.part(role)
        machine = EngineMachine.here(import_tensorrt().__version__)
        self.bundle = bundle
        self.table: Rows = open_table(bundle, role)
        self.head: NDArray[np.float32] | None = open_head(bundle) if role == "reranker" else None
        self._adapter = part.adapter
        self._vision = Lease(_built(bundle, part.vision, machine), options, load=_load)
        self._decoder = Lease(_built(bundle, part.decoder, machine), options, load=_load)

    def vision(self) -> Session:
        """The vision tower."""
        return self._vision()

    def decoder(self) -> Session:
        """The decoder."""
        session = self._decoder()
        return session if self._adapter is None else SwitchedSession(session, self._adapter)

    def unload(self) -> None:
        """Free both engines, unless the other model of the pair is using them."""
        self._vision.drop()
        self._decoder.drop()


def _built(bundle: Bundle, graph: str, machine: EngineMachine) -> Path:
    engine = EnginePlace.of(bundle, graph, machine).find()
    if engine is None:
        raise ModelError(
            f"{bundle.path}: no engine of {graph} was built for {machine.gpu} with TensorRT "
            f"{machine.tensorrt} and driver {machine.driver}. Build it: "
            f"qvl-local export {bundle.path} --tensorrt -o {bundle.path}"
        )
    return engine


def _load(engine: Path, _options: SessionOptions) -> Session:
    return TensorrtSession(engine)
