"""INT96 timestamps, as Spark and Hive write them. Arrow reads them as nanoseconds, and wrongly before 1677 and after 2262.

Such columns are therefore read twice: in nanoseconds, and in microseconds, which hold every year that is written."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.records import Reasons
from bulkembed.schema import display_value
from bulkembed.source.invalid_values import null_rows
from bulkembed.value_encoding import LISTS, list_items

MAX_MICROSECONDS = (2**63 - 1) // 1000  # more of them are no 64-bit number of nanoseconds


def overflow(column: pa.ChunkedArray, microseconds: pa.ChunkedArray) -> list[int]:
    """The rows of a column in nanoseconds that hold a time beyond 64 bits. `microseconds`: the same column in microseconds."""
    chunks = (overflowing(chunk, column.type) for chunk in microseconds.chunks)
    rows: list[int] = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *chunks])).tolist()
    return rows


def null_overflow(column: pa.ChunkedArray, microseconds: pa.ChunkedArray, name: str, rows: list[int]) -> tuple[pa.ChunkedArray, Reasons]:
    """The column in nanoseconds with null in these rows, and why they are rejects."""
    shown = {row: str(display_value(microseconds, row))[:100] for row in rows}
    return null_rows(column, rows), {row: ("wrong_type", f"{name} is {text}, not {column.type}") for row, text in shown.items()}


def overflowing(array: pa.Array, kind: pa.DataType) -> npt.NDArray[np.bool_]:
    """Which values hold a timestamp in microseconds that is too large for `kind`, the same type in nanoseconds."""
    if pa.types.is_timestamp(array.type) and array.type != kind:
        numbers = pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
        outside: npt.NDArray[np.bool_] = (numbers > MAX_MICROSECONDS) | (numbers < -MAX_MICROSECONDS)
        return outside
    mask = np.zeros(len(array), np.bool_)
    if pa.types.is_struct(array.type):
        for part, field in zip(array.flatten(), kind, strict=True):
            mask |= overflowing(part, field.type)
    elif isinstance(array.type, LISTS):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        mask[np.repeat(np.arange(len(array)), lengths)[overflowing(list_items(array), kind.value_type)]] = True
    elif pa.types.is_map(array.type):
        offsets = array.offsets.to_numpy()
        entries = (offsets[0], offsets[-1] - offsets[0])
        for part, part_kind in ((array.keys.slice(*entries), kind.key_type), (array.items.slice(*entries), kind.item_type)):
            mask[np.repeat(np.arange(len(array)), np.diff(offsets))[overflowing(part, part_kind)]] = True
    return mask
