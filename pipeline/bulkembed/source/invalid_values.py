"""Values of Parquet columns that are no values of their type: text that is not UTF-8, and times of day beyond 24 hours.

Arrow passes them on, and other readers then refuse the whole file."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.records import Reasons, RejectReason
from bulkembed.source.column_types import is_text
from bulkembed.value_encoding import LISTS, list_items


def null_invalid(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, Reasons]:
    """The column with null for each invalid value, and the rows of these values."""
    bad = invalid_rows(column)
    return null_rows(column, list(bad)), {row: invalid_reason(column, row, problem, name) for row, problem in bad.items()}


def repair(column: pa.ChunkedArray) -> tuple[pa.ChunkedArray, int]:
    """The column with U+FFFD for bytes that are not UTF-8 and null for invalid times, and the number of rows that had some."""
    bad = invalid_rows(column)
    if not bad:
        return column, 0
    chunks = [repair_array(chunk) for chunk in column.chunks]
    return pa.chunked_array(chunks, column.type), len(bad)


def invalid_rows(column: pa.ChunkedArray) -> dict[int, str]:
    """The rows with an invalid value, and Arrow's message about it."""
    if arrow_problem(column) is None:
        return {}
    problems = {row: arrow_problem(column.take(pa.array([row]))) for row in range(len(column))}
    return {row: problem for row, problem in problems.items() if problem is not None}


def invalid_reason(column: pa.ChunkedArray, row: int, problem: str, name: str) -> tuple[RejectReason, str]:
    if "UTF8" not in problem:
        return "wrong_type", f"{name}: {problem}"
    shown = f"is {column[row].as_buffer().to_pybytes()[:50]!r}" if is_text(column.type) else "holds text"
    return "undecodable", f"{name} {shown}, not UTF-8"


def repair_array(array: pa.Array) -> pa.Array:
    """The array with all of its invalid values replaced."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, repair_array(array.storage))
    if pa.types.is_struct(kind):
        return pa.StructArray.from_arrays([repair_array(part) for part in array.flatten()], fields=list(kind), mask=array.is_null())
    if pa.types.is_map(kind):
        offsets = array.offsets.to_numpy()
        parts = [repair_array(part.slice(offsets[0], offsets[-1] - offsets[0])) for part in (array.keys, array.items)]
        return pa.MapArray.from_arrays(pa.array(offsets - offsets[0]), *parts, type=kind, mask=array.is_null())
    if isinstance(kind, LISTS):
        ends = np.cumsum([0, *(length or 0 for length in pc.list_value_length(array).to_pylist())])
        large = pa.LargeListArray.from_arrays(pa.array(ends), repair_array(list_items(array)), mask=array.is_null())
        return large.cast(kind)
    if is_text(kind):
        values = array.cast(pa.large_binary()).to_pylist()
        return pa.array([None if value is None else value.decode(errors="replace") for value in values], kind)
    valid = [arrow_problem(array.slice(row, 1)) is None for row in range(len(array))]
    return array.take(pa.array(np.arange(len(array)), mask=~np.array(valid, np.bool_)))


def null_rows(column: pa.ChunkedArray, rows: list[int]) -> pa.ChunkedArray:
    """The column with null in these rows."""
    places = np.arange(len(column))
    return column.take(pa.array(places, mask=np.isin(places, rows))) if rows else column


def arrow_problem(values: pa.ChunkedArray | pa.Array) -> str | None:
    """Arrow's message about an invalid value; None if all values are valid."""
    try:
        values.validate(full=True)
    except pa.ArrowInvalid as error:
        return str(error).splitlines()[0].rpartition("Invalid: ")[2]
    return None
