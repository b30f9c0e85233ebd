"""Full-width vectors -> stored forms (float32, float16, int8, binary), and back; int8 ranges and their text form. numpy only.

The int8 ranges of a column have shape (2, dim): the least and the greatest value of each component."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from bulkembed.errors import EmbeddingError
from bulkembed.records import VectorForm
from bulkembed.vectors.matryoshka import Vectors, cut_vectors

INT8_RANGES_PREFIX = "int8_ranges."  # of the name of a text that holds the int8 ranges of a column
LEVELS = 255  # steps of an int8 between the ends of its range
MIN_RANGE_WIDTH = 0.1  # in units of 1 / sqrt(dim); another batch changes a component by less


def encode_vectors(vectors: Vectors, form: VectorForm, int8_ranges: Vectors | None) -> npt.NDArray[np.generic]:
    """(n, width) -> (n, dim) floats or int8, or (n, dim / 8) uint8 of packed signs with the first component in the highest bit.

    `int8_ranges`: needed for int8 only. Raises EmbeddingError where they are missing, or where a row is no vector."""
    return encode_counting_clipped(vectors, form, int8_ranges)[0]


def encode_counting_clipped(vectors: Vectors, form: VectorForm, int8_ranges: Vectors | None) -> tuple[npt.NDArray[np.generic], int]:
    """The result of `encode_vectors`, and how many int8 components were clipped because they lie outside their range."""
    unit = cut_vectors(vectors, form.dim)
    if form.dtype == "binary":
        return np.packbits(unit > 0, axis=1), 0
    if form.dtype == "int8":
        return quantize_in_place(unit, *low_and_step(int8_ranges, form))
    return (unit.astype(np.float16) if form.dtype == "float16" else unit), 0


def quantize_in_place(unit: Vectors, low: Vectors, step: Vectors) -> tuple[npt.NDArray[np.int8], int]:
    """int8 levels, and how many components were clipped. It overwrites `unit`."""
    unit -= low
    unit /= step
    np.rint(unit, out=unit)
    inside = np.clip(unit, 0, LEVELS)
    clipped = int(np.count_nonzero(unit != inside))
    inside -= 128
    return inside.astype(np.int8), clipped


def decode_vectors(values: npt.NDArray[np.generic], form: VectorForm, int8_ranges: Vectors | None) -> Vectors:
    """Stored values -> (n, dim) float32, as near to the vectors as the form allows."""
    if form.dtype == "binary":
        bits = np.unpackbits(values.astype(np.uint8, copy=False), axis=1, count=form.dim)
        return (bits.astype(np.float32) * 2 - 1) / np.float32(np.sqrt(form.dim))
    if form.dtype == "int8":
        low, step = low_and_step(int8_ranges, form)
        return (values.astype(np.float32) + 128) * step + low
    return values.astype(np.float32)


def low_and_step(int8_ranges: Vectors | None, form: VectorForm) -> tuple[Vectors, Vectors]:
    """The least value of each component, and the step from one int8 level to the next. Raises EmbeddingError without ranges."""
    if int8_ranges is None or int8_ranges.shape != (2, form.dim):
        raise EmbeddingError(f"{form}: no int8 ranges to quantize with")
    return int8_ranges[0], np.maximum((int8_ranges[1] - int8_ranges[0]) / LEVELS, np.finfo(np.float32).tiny)


def measure_int8_ranges(vectors: Vectors, dim: int) -> Vectors:
    """The int8 ranges of a sample of full-width vectors."""
    unit = cut_vectors(vectors, dim)
    return np.stack([unit.min(axis=0), unit.max(axis=0)])


def join_int8_ranges(parts: Iterable[Vectors]) -> Vectors:
    """The int8 ranges of several samples together."""
    stacked = np.stack(list(parts))
    return np.stack([stacked[:, 0].min(axis=0), stacked[:, 1].max(axis=0)])


def widen_int8_ranges(int8_ranges: Vectors) -> Vectors:
    """Ranges that are at least MIN_RANGE_WIDTH wide. The ranges of a single row have no width at all."""
    middle = (int8_ranges[0] + int8_ranges[1]) / 2
    reach = np.float32(MIN_RANGE_WIDTH / 2 / np.sqrt(int8_ranges.shape[1]))
    return np.stack([np.minimum(int8_ranges[0], middle - reach), np.maximum(int8_ranges[1], middle + reach)])


def int8_ranges_to_text(int8_ranges: dict[str, Vectors]) -> dict[str, str]:
    """By column -> `int8_ranges.<column>`, base64 of little-endian float32: the form in footers and JSON records."""
    return {f"{INT8_RANGES_PREFIX}{name}": b64encode(value.astype("<f4").tobytes()).decode() for name, value in int8_ranges.items()}


def int8_ranges_from_text(texts: dict[str, str]) -> dict[str, Vectors]:
    """The int8 ranges among `texts`, by column."""
    encoded = {name.removeprefix(INT8_RANGES_PREFIX): text for name, text in texts.items() if name.startswith(INT8_RANGES_PREFIX)}
    return {name: np.frombuffer(b64decode(text), "<f4").astype(np.float32).reshape(2, -1) for name, text in encoded.items()}
