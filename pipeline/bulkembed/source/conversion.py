"""Columns of Parquet in the types of the run. A conversion counts only if it converts back to the same.

The values must mean the same as well: text never becomes a number, nor a time one without its zone."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.errors import ObjectError
from bulkembed.schema import display_value
from bulkembed.source.column_types import LISTS, plain_type

Reasons = dict[int, tuple[str, str]]  # row of the shard -> (reason, detail)
MAX_MICROSECONDS = (2**63 - 1) // 1000  # that are nanoseconds in 64 bits
Allowed = Callable[[pa.DataType, pa.DataType], bool]
# Types of one family hold the same values; int and decimal do too, float and decimal do not.
FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    lambda kind: pa.types.is_integer(kind) or pa.types.is_decimal(kind),
    lambda kind: pa.types.is_string(kind) or pa.types.is_large_string(kind),
    lambda kind: pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind),
    pa.types.is_time,
    pa.types.is_date,
    pa.types.is_duration,
    pa.types.is_timestamp,
)


class Differs(Exception):
    """What does not come back as it was: (reason, row of the array or None)."""


def castable(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """For a type that the configuration asks for: whatever converts back, but for zones, which Arrow drops and adds at will."""
    return not (pa.types.is_timestamp(kind) and pa.types.is_timestamp(wanted)) or kind.tz == wanted.tz


def same_meaning(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """For a type that the first object set."""
    return castable(kind, wanted) and any(family(kind) and family(wanted) for family in FAMILIES)


def convert(column: pa.ChunkedArray, wanted: pa.DataType, name: str, allowed: Allowed, where: str, first_row: int) -> pa.ChunkedArray:
    """`column` in the type of the run. Raises ObjectError with both types, and the first value that would change."""
    if column.type == wanted:
        return column
    chunks: list[pa.Array] = []
    for chunk in column.chunks:
        try:
            chunks.append(converted(chunk, wanted, name, allowed))
        except Differs as problem:
            reason, row = problem.args
            place = "" if row is None else f"row {first_row + row + sum(map(len, chunks))}: "
            raise ObjectError(
                f"{where}: column {name!r} has type {column.type}, but {wanted} in this run, by its first object or column_types: "
                f"{place}{reason}; name a type that holds both in column_types, or convert the files"
            ) from None
    return pa.chunked_array(chunks, wanted)


def converted(array: pa.Array, wanted: pa.DataType, path: str, allowed: Allowed) -> pa.Array:
    """Raises Differs."""
    array = decoded(array)
    kind = array.type
    if kind == wanted:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), wanted)
    if pa.types.is_struct(kind) and pa.types.is_struct(wanted):
        return structs(array, wanted, path, allowed)
    if isinstance(kind, LISTS) and isinstance(wanted, LISTS):
        return lists(array, wanted, path, allowed)
    if not allowed(kind, wanted):
        raise Differs(f"{path} holds {kind}, which is not {wanted}", None)
    return scalars(array, wanted, path)


def decoded(array: pa.Array) -> pa.Array:
    """The values that a dictionary, a view or a narrow decimal stands for."""
    if pa.types.is_dictionary(array.type):
        return decoded(array.dictionary_decode())
    return array if pa.types.is_nested(array.type) else array.cast(plain_type(array.type))


def scalars(array: pa.Array, wanted: pa.DataType, path: str) -> pa.Array:
    try:
        there = array.cast(wanted)
        back = there.cast(array.type)
        same = pc.or_(pc.equal(comparable(array), comparable(back)), pc.and_(is_nan(array), is_nan(back)))
    except pa.ArrowException as error:
        raise Differs(f"{path}: {str(error).splitlines()[0]}", None) from None
    changed = pc.and_(array.is_valid(), pc.invert(pc.fill_null(same, False)))
    if pc.any(changed).as_py():
        row = pc.index(changed, True).as_py()
        raise Differs(f"{path} is {array[row]!s}, in the other type {there[row]!s}", row)
    return there


def comparable(array: pa.Array) -> pa.Array:
    return array.cast(pa.float32()) if pa.types.is_float16(array.type) else array


def is_nan(array: pa.Array) -> pa.Array:
    return pc.is_nan(comparable(array)) if pa.types.is_floating(array.type) else pa.array(np.zeros(len(array), np.bool_))


def structs(array: pa.StructArray, wanted: pa.StructType, path: str, allowed: Allowed) -> pa.Array:
    """Fields by name; a field that is missing is null."""
    parts = dict(zip(field_names(array.type, path), array.flatten(), strict=True))
    for name in parts.keys() - set(field_names(wanted, path)):
        if parts[name].null_count < len(array):
            raise Differs(f"{path}.{name} is not in {wanted}", None)
    children = [
        converted(parts[field.name], field.type, f"{path}.{field.name}", allowed)
        if field.name in parts
        else pa.nulls(len(array), field.type)
        for field in wanted
    ]
    return pa.StructArray.from_arrays(children, fields=list(wanted), mask=array.is_null())


def field_names(kind: pa.StructType, path: str) -> list[str]:
    names = [field.name for field in kind]
    if len(set(names)) < len(names):
        raise Differs(f"{path} has two fields of one name", None)
    return names


def lists(array: pa.Array, wanted: pa.DataType, path: str, allowed: Allowed) -> pa.Array:
    items = converted(array.flatten(), wanted.value_type, f"{path}[]", allowed)
    ends = np.cumsum(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    large = pa.large_list(wanted.value_field)
    built = pa.LargeListArray.from_arrays(pa.array(offsets), items, type=large, mask=array.is_null())
    try:
        return built if wanted == large else built.cast(wanted)
    except pa.ArrowException as error:
        raise Differs(f"{path}: {str(error).splitlines()[0]}", None) from None


def readable(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, Reasons]:
    """`column` with null for each value that is none of its type, and the rows of those: text that is not UTF-8, a time of day beyond
    24 hours. Arrow carries such values unseen, and other readers refuse the whole file for them."""
    if problem_of(column) is None:
        return column, {}
    problems = {row: problem_of(column.take(pa.array([row]))) for row in range(len(column))}
    reasons = {row: unreadable(column, row, problem, name) for row, problem in problems.items() if problem is not None}
    return without(column, list(reasons)), reasons


def unreadable(column: pa.ChunkedArray, row: int, problem: str, name: str) -> tuple[str, str]:
    if "UTF8" not in problem:
        return "wrong_type", f"{name}: {problem}"
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    shown = f"is {column[row].as_buffer().to_pybytes()[:50]!r}" if text else "holds text"
    return "undecodable", f"{name} {shown}, not UTF-8"


def without_overflow(column: pa.ChunkedArray, microseconds: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, Reasons]:
    """Timestamps in nanoseconds, or values that hold some, with null for each that 64 bits of nanoseconds cannot hold, and the rows of
    those. `microseconds`: the same values, with such timestamps in microseconds."""
    bad = np.flatnonzero(np.concatenate([np.zeros(0, np.bool_), *(beyond(chunk, column.type) for chunk in microseconds.chunks)])).tolist()
    return without(column, bad), {
        row: ("wrong_type", f"{name} is {str(display_value(microseconds, row))[:100]}, not {column.type}") for row in bad
    }


def beyond(array: pa.Array, kind: pa.DataType) -> npt.NDArray[np.bool_]:
    """Which values hold a timestamp in microseconds that `kind`, the same in nanoseconds, has no room for."""
    if pa.types.is_timestamp(array.type) and array.type != kind:
        numbers = pc.fill_null(array.view(pa.int64()), 0).to_numpy(zero_copy_only=False)
        outside: npt.NDArray[np.bool_] = (numbers > MAX_MICROSECONDS) | (numbers < -MAX_MICROSECONDS)
        return outside
    found = np.zeros(len(array), np.bool_)
    if pa.types.is_struct(array.type):
        for part, field in zip(array.flatten(), kind, strict=True):
            found |= beyond(part, field.type)
    elif isinstance(array.type, LISTS):
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
        found[np.repeat(np.arange(len(array)), lengths)[beyond(array.flatten(), kind.value_type)]] = True
    elif pa.types.is_map(array.type):
        offsets = array.offsets.to_numpy()
        held = (offsets[0], offsets[-1] - offsets[0])
        for part, of in ((array.keys.slice(*held), kind.key_type), (array.items.slice(*held), kind.item_type)):
            found[np.repeat(np.arange(len(array)), np.diff(offsets))[beyond(part, of)]] = True
    return found


def without(column: pa.ChunkedArray, rows: list[int]) -> pa.ChunkedArray:
    """`column` with null in these rows."""
    places = np.arange(len(column))
    return column.take(pa.array(places, mask=np.isin(places, rows))) if rows else column


def problem_of(column: pa.ChunkedArray) -> str | None:
    """What Arrow says of a value that is none of the column's type; None where all are."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        return str(error).splitlines()[0].rpartition("Invalid: ")[2]
    return None
