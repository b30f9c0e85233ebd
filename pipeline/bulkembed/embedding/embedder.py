"""The protocol of a loaded model: batches of token ids in, full-width vectors out.

`vllm_engine.VLLMEmbedder` and `simulated.SimulatedEmbedder` implement it; `loading` chooses between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

TokenIds = Sequence[npt.NDArray[np.int32]]
Vectors = npt.NDArray[np.float32]


def ignore_vector() -> None:
    """The `on_vector` of an embedder whose progress nobody watches."""


class Embedder(Protocol):
    """A loaded model. `embed` may be called from several threads at once."""

    version: str  # engine, its version and the kind of host, for the provenance
    on_vector: Callable[[], None]  # `embed` calls it, on any thread, each time that the engine has finished a document

    def embed(self, documents: TokenIds) -> Vectors:
        """float32 of shape (documents, width), in the order given. Raises EngineError where the engine fails."""
        ...

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        """float32 of shape (tokens, width): the states that a vector is pooled from, before normalization."""
        ...
