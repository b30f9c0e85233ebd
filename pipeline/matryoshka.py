"""Full-width vectors -> the dimensions asked for: sliced, renormalised, cast. numpy only.

One pass of the model serves every dimension: the first d components of a Matryoshka model's
vector, divided by their norm, are its d-dimensional vector.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from pipeline.errors import EmbeddingError


def cut(vectors: npt.NDArray[np.float32], dim: int, dtype: str) -> npt.NDArray[np.floating]:
    """(n, width) float32 -> (n, dim) of `dtype`, each row of norm 1.

    Raises EmbeddingError where a row is not finite or has no direction."""
    sliced = vectors[:, :dim].astype(np.float32, copy=True)
    norms = np.linalg.norm(sliced, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        raise EmbeddingError(f"the engine's vector of document {bad[0]} (and {len(bad) - 1} more) is zero or not finite")
    sliced /= norms
    return sliced.astype(dtype, copy=False)
