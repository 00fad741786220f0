"""The seam between models and engines: a `Session` runs one graph on named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.generic]


class Session(Protocol):
    """One loaded graph, vision tower or decoder, whatever engine runs it.

    vision:  patches[S,N,P], pos_idx[N,4] int64, pos_w[N,4], cos[N,hd/2], sin[N,hd/2]
             -> features[S,N/4,H], deepstack[K,S,N/4,H]
             S images or frame pairs of one grid; N patches in merge order, P values a patch.
    decoder: embeds[B,T,H], cos[B,T,hd/2], sin[B,T,hd/2], deepstack[K,B|1,T|1,H], last[B] int64
             -> pooled[B,H], the last token's state after the final norm, not L2-normalised.

    Floating inputs are float32 whatever the graph's precision; `run` casts. Outputs are float32.
    """

    def run(self, feeds: Mapping[str, Array]) -> dict[str, NDArray[np.float32]]:
        """Run the graph once.

        Raises:
            ModelMemoryError: the batch does not fit into memory; a smaller one may.
            ModelError: the engine failed.
        """
        ...
