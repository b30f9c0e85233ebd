"""Full-width vectors -> the forms asked for: sliced, renormalised, cast or quantized. numpy only.

One pass of the model serves every form: the first d components of a Matryoshka model's vector,
divided by their norm, are its d-dimensional vector.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.errors import EmbeddingError
from bulkembed.records import VectorForm

Vectors = npt.NDArray[np.float32]
RANGES = "int8_ranges."  # name of a text that holds ranges
LEVELS = 255  # steps of an int8 between the ends of its range
MIN_NORM = 1e-18  # Below it the squares of float32 lose their digits, and the norm is wrong.
MIN_WIDTH = 0.1  # of a component's range, in units of 1 / sqrt(dim): another batch moves a component by less


def usable(vectors: Vectors, dims: Iterable[int] = ()) -> npt.NDArray[np.bool_]:
    """Which rows are finite and have a direction, and so have their first `d` components for each of `dims`."""
    found = directed(vectors)
    width = vectors.shape[1]
    smallest = min((width, *dims))  # A longer slice holds it, so that its norm is no less.
    return found if smallest == width else found & directed(vectors[:, :smallest])


def directed(vectors: Vectors) -> npt.NDArray[np.bool_]:
    """Which rows have a norm that float32 can tell from 0 and from infinity."""
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors, axis=1)
    return np.asarray(np.isfinite(norms) & (norms > MIN_NORM))


def cut(vectors: Vectors, dim: int) -> Vectors:
    """(n, width) -> (n, dim), each row of norm 1.

    Raises EmbeddingError where a row is not finite or has no direction."""
    sliced = vectors[:, :dim].astype(np.float32, copy=True)
    bad = np.flatnonzero(~directed(sliced))
    if len(bad):
        raise EmbeddingError(f"the engine's vector of row {bad[0]} (and {len(bad) - 1} more) is zero or not finite")
    sliced /= np.linalg.norm(sliced, axis=1, keepdims=True)
    return sliced


def encode(vectors: Vectors, form: VectorForm, ranges: Vectors | None) -> npt.NDArray[np.generic]:
    """(n, width) -> (n, dim) floats or int8, or (n, dim / 8) uint8 of packed signs, first component
    in the highest bit. `ranges`, for int8: (2, dim), the least and the greatest value of each component."""
    return encode_counting(vectors, form, ranges)[0]


def encode_counting(vectors: Vectors, form: VectorForm, ranges: Vectors | None) -> tuple[npt.NDArray[np.generic], int]:
    """What `encode` makes, and how many int8 components were clipped: those that lie outside their range."""
    unit = cut(vectors, form.dim)
    if form.dtype == "binary":
        return np.packbits(unit > 0, axis=1), 0
    if form.dtype == "int8":
        return quantized(unit, *scale(ranges, form))
    return (unit.astype(np.float16) if form.dtype == "float16" else unit), 0


def quantized(unit: Vectors, low: Vectors, step: Vectors) -> tuple[npt.NDArray[np.int8], int]:
    """int8 levels, and how many components were clipped. Works in place: `unit` is used up."""
    unit -= low
    unit /= step
    np.rint(unit, out=unit)
    inside = np.clip(unit, 0, LEVELS)
    clipped = int(np.count_nonzero(unit != inside))
    inside -= 128
    return inside.astype(np.int8), clipped


def decode(values: npt.NDArray[np.generic], form: VectorForm, ranges: Vectors | None) -> Vectors:
    """What `encode` made, back as (n, dim) float32: as near as the form allows."""
    if form.dtype == "binary":
        bits = np.unpackbits(values.astype(np.uint8, copy=False), axis=1, count=form.dim)
        return (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(form.dim))
    if form.dtype == "int8":
        low, step = scale(ranges, form)
        return (values.astype(np.float32) + 128) * step + low
    return values.astype(np.float32)


def scale(ranges: Vectors | None, form: VectorForm) -> tuple[Vectors, Vectors]:
    """The least value of each component, and the step from one int8 to the next."""
    if ranges is None or ranges.shape != (2, form.dim):
        raise EmbeddingError(f"{form}: no ranges to quantize with")
    return ranges[0], np.maximum((ranges[1] - ranges[0]) / LEVELS, np.finfo(np.float32).tiny)


def ranges_of(vectors: Vectors, dim: int) -> Vectors:
    """(2, dim): the least and the greatest value of each component in a sample of full-width vectors."""
    unit = cut(vectors, dim)
    return np.stack([unit.min(axis=0), unit.max(axis=0)])


def joined(ranges: Iterable[Vectors]) -> Vectors:
    """The ranges of several samples together."""
    every = np.stack(list(ranges))
    return np.stack([every[:, 0].min(axis=0), every[:, 1].max(axis=0)])


def widened(ranges: Vectors) -> Vectors:
    """Ranges that are no narrower than noise: those of a single row have no width at all."""
    middle = (ranges[0] + ranges[1]) / 2
    reach = np.float32(MIN_WIDTH / 2 / np.sqrt(ranges.shape[1]))
    return np.stack([np.minimum(ranges[0], middle - reach), np.maximum(ranges[1], middle + reach)])


def cosines(a: npt.NDArray[np.floating[Any]], b: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.float64]:
    """Of the rows of `a` and `b`, pair by pair."""
    a, b = a.astype(np.float64), b.astype(np.float64)  # float32 gives cosines above 1
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return np.asarray(np.sum(a * b, axis=1) / np.maximum(norms, np.finfo(np.float64).tiny))


def ranges_to_text(ranges: dict[str, Vectors]) -> dict[str, str]:
    """For footers and JSON: `int8_ranges.<column>`, base64 of little-endian float32 of shape (2, dim)."""
    return {f"{RANGES}{name}": b64encode(value.astype("<f4").tobytes()).decode() for name, value in ranges.items()}


def ranges_from_text(texts: dict[str, str]) -> dict[str, Vectors]:
    """The ranges among `texts`, by column."""
    found = {name.removeprefix(RANGES): text for name, text in texts.items() if name.startswith(RANGES)}
    return {name: np.frombuffer(b64decode(text), "<f4").astype(np.float32).reshape(2, -1) for name, text in found.items()}
