"""A Parquet column -> the same column in the type of the run, and the rows whose values do not fit.

A conversion is accepted only if it converts back to the same values. The values must also keep their meaning: text never becomes a
number, and a time never loses its zone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.errors import ObjectError
from bulkembed.records import Reasons, RejectReason
from bulkembed.schema import display_value
from bulkembed.source.column_types import LISTS, plain_type

MAX_MICROSECONDS = (2**63 - 1) // 1000  # more of them are no 64-bit number of nanoseconds
Allowed = Callable[[pa.DataType, pa.DataType], bool]  # (type of the file, type of the run)
# Types of one family hold the same kind of values. Integers and decimals are one family, floats and decimals are not.
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
    """A value that changes in the conversion: (reason, row of the array or None)."""


def may_cast(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether a type that the configuration names is allowed: every type, but a time zone must not change. Arrow itself would
    drop or add one."""
    return not (pa.types.is_timestamp(kind) and pa.types.is_timestamp(target)) or kind.tz == target.tz


def same_meaning(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether a type that the first object set is allowed: only a type of the same family."""
    return may_cast(kind, target) and any(family(kind) and family(target) for family in FAMILIES)


def convert_column(
    column: pa.ChunkedArray, target: pa.DataType, name: str, allowed: Allowed, where: str, object_rows: Sequence[int]
) -> pa.ChunkedArray:
    """The column in the type of the run. Raises ObjectError that names both types and the first value that would change.

    `object_rows`: the row of the object of each value."""
    if column.type == target:
        return column
    chunks: list[pa.Array] = []
    for chunk in column.chunks:
        try:
            chunks.append(convert_array(chunk, target, name, allowed))
        except Differs as problem:
            reason, row = problem.args
            place = "" if row is None else f"row {object_rows[row + sum(map(len, chunks))]}: "
            raise ObjectError(
                f"{where}: column {name!r} has type {column.type}, but {target} in this run, by its first object or column_types: "
                f"{place}{reason}; name a type that holds both in column_types, or convert the files"
            ) from None
    return pa.chunked_array(chunks, target)


def convert_array(array: pa.Array, target: pa.DataType, path: str, allowed: Allowed) -> pa.Array:
    """Raises Differs."""
    array = decode_array(array)
    kind = array.type
    if kind == target:
        return array
    if array.null_count == len(array):
        return pa.nulls(len(array), target)
    if pa.types.is_struct(kind) and pa.types.is_struct(target):
        return convert_structs(array, target, path, allowed)
    if isinstance(kind, LISTS) and isinstance(target, LISTS):
        return convert_lists(array, target, path, allowed)
    if not allowed(kind, target):
        raise Differs(f"{path} holds {kind}, which is not {target}", None)
    return convert_scalars(array, target, path)


def decode_array(array: pa.Array) -> pa.Array:
    """The array without dictionaries, views and narrow decimals."""
    if pa.types.is_dictionary(array.type):
        values = array.dictionary.cast(plain_type(array.dictionary.type))  # Arrow's `take` does not know views
        return decode_array(pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode())
    return array if pa.types.is_nested(array.type) else array.cast(plain_type(array.type))


def convert_scalars(array: pa.Array, target: pa.DataType, path: str) -> pa.Array:
    try:
        cast = array.cast(target)
        back = cast.cast(array.type)
        same = pc.or_(pc.equal(comparable(array), comparable(back)), pc.and_(is_nan(array), is_nan(back)))
    except pa.ArrowException as error:
        raise Differs(f"{path}: {str(error).splitlines()[0]}", None) from None
    changed = pc.and_(array.is_valid(), pc.invert(pc.fill_null(same, False)))
    if pc.any(changed).as_py():
        row = pc.index(changed, True).as_py()
        raise Differs(f"{path} is {array[row]!s}, in the other type {cast[row]!s}", row)
    return cast


def comparable(array: pa.Array) -> pa.Array:
    return array.cast(pa.float32()) if pa.types.is_float16(array.type) else array


def is_nan(array: pa.Array) -> pa.Array:
    return pc.is_nan(comparable(array)) if pa.types.is_floating(array.type) else pa.array(np.zeros(len(array), np.bool_))


def convert_structs(array: pa.StructArray, target: pa.StructType, path: str, allowed: Allowed) -> pa.Array:
    """Converts fields by name. A missing field is null. Raises Differs."""
    parts = dict(zip(field_names(array.type, path), array.flatten(), strict=True))
    for name in parts.keys() - set(field_names(target, path)):
        if parts[name].null_count < len(array):
            raise Differs(f"{path}.{name} is not in {target}", None)
    children = [
        convert_array(parts[field.name], field.type, f"{path}.{field.name}", allowed)
        if field.name in parts
        else pa.nulls(len(array), field.type)
        for field in target
    ]
    return pa.StructArray.from_arrays(children, fields=list(target), mask=array.is_null())


def field_names(kind: pa.StructType, path: str) -> list[str]:
    names = [field.name for field in kind]
    if len(set(names)) < len(names):
        raise Differs(f"{path} has two fields of one name", None)
    return names


def convert_lists(array: pa.Array, target: pa.DataType, path: str, allowed: Allowed) -> pa.Array:
    items = convert_array(array.flatten(), target.value_type, f"{path}[]", allowed)
    ends = np.cumsum(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    large = pa.large_list(target.value_field)
    built = pa.LargeListArray.from_arrays(pa.array(offsets), items, type=large, mask=array.is_null())
    try:
        return built if target == large else built.cast(target)
    except pa.ArrowException as error:
        raise Differs(f"{path}: {str(error).splitlines()[0]}", None) from None


def null_unreadable(column: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, Reasons]:
    """The column with null for each invalid value, and the rows of these values.

    Invalid are text that is not UTF-8 and a time of day beyond 24 hours. Arrow passes such values on, and other readers then refuse
    the whole file."""
    if arrow_problem(column) is None:
        return column, {}
    problems = {row: arrow_problem(column.take(pa.array([row]))) for row in range(len(column))}
    reasons = {row: unreadable_reason(column, row, problem, name) for row, problem in problems.items() if problem is not None}
    return null_rows(column, list(reasons)), reasons


def unreadable_reason(column: pa.ChunkedArray, row: int, problem: str, name: str) -> tuple[RejectReason, str]:
    if "UTF8" not in problem:
        return "wrong_type", f"{name}: {problem}"
    text = pa.types.is_string(column.type) or pa.types.is_large_string(column.type)
    shown = f"is {column[row].as_buffer().to_pybytes()[:50]!r}" if text else "holds text"
    return "undecodable", f"{name} {shown}, not UTF-8"


def null_overflow(column: pa.ChunkedArray, microseconds: pa.ChunkedArray, name: str) -> tuple[pa.ChunkedArray, Reasons]:
    """A column of timestamps in nanoseconds with null for each that 64 bits cannot hold, and the rows of these values.

    `microseconds`: the same column, read with its timestamps in microseconds. Both may hold timestamps within nested values."""
    bad = np.flatnonzero(
        np.concatenate([np.zeros(0, np.bool_), *(overflowing(chunk, column.type) for chunk in microseconds.chunks)])
    ).tolist()
    return null_rows(column, bad), {
        row: ("wrong_type", f"{name} is {str(display_value(microseconds, row))[:100]}, not {column.type}") for row in bad
    }


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
        mask[np.repeat(np.arange(len(array)), lengths)[overflowing(array.flatten(), kind.value_type)]] = True
    elif pa.types.is_map(array.type):
        offsets = array.offsets.to_numpy()
        entries = (offsets[0], offsets[-1] - offsets[0])
        for part, part_kind in ((array.keys.slice(*entries), kind.key_type), (array.items.slice(*entries), kind.item_type)):
            mask[np.repeat(np.arange(len(array)), np.diff(offsets))[overflowing(part, part_kind)]] = True
    return mask


def null_rows(column: pa.ChunkedArray, rows: list[int]) -> pa.ChunkedArray:
    """The column with null in these rows."""
    places = np.arange(len(column))
    return column.take(pa.array(places, mask=np.isin(places, rows))) if rows else column


def arrow_problem(column: pa.ChunkedArray) -> str | None:
    """Arrow's message about an invalid value of the column; None if all values are valid."""
    try:
        column.validate(full=True)
    except pa.ArrowInvalid as error:
        return str(error).splitlines()[0].rpartition("Invalid: ")[2]
    return None
