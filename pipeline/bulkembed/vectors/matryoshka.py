"""Full-width vectors -> their first components, with norm 1. numpy only.

One pass of the model serves every dimension: the first d components of a Matryoshka model's vector, divided by their norm, are its
d-dimensional vector.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.errors import EmbeddingError

Vectors = npt.NDArray[np.float32]
MIN_NORM = 1e-18  # below it the squares of float32 components lose their digits, and the norm is wrong


def usable_rows(vectors: Vectors, dims: Iterable[int] = ()) -> npt.NDArray[np.bool_]:
    """Which rows are finite and have a direction, in full width and in their first `d` components for each of `dims`."""
    usable = rows_with_direction(vectors)
    width = vectors.shape[1]
    smallest = min((width, *dims))  # every other slice contains this one, so that its norm is at least as large
    return usable if smallest == width else usable & rows_with_direction(vectors[:, :smallest])


def rows_with_direction(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """Which rows have a norm that float32 can tell from 0 and from infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    return np.asarray(np.isfinite(norms) & (norms > MIN_NORM))


def cut_vectors(vectors: Vectors, dim: int) -> Vectors:
    """(n, width) -> (n, dim), each row of norm 1. Raises EmbeddingError where a row is not finite or has no direction."""
    sliced = vectors[:, :dim].astype(np.float32, copy=True)
    bad = np.flatnonzero(~rows_with_direction(sliced))
    if len(bad):
        raise EmbeddingError(f"the engine's vector of row {bad[0]} (and {len(bad) - 1} more) is zero or not finite")
    sliced /= np.linalg.norm(sliced, axis=1, keepdims=True)
    return sliced


def cosines(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """(n, dim) twice -> (n,): the cosine of each row of `a` with the same row of `b`."""
    a, b = a.astype(np.float64), b.astype(np.float64)  # float32 gives cosines above 1
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.sum(a * b, axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))
