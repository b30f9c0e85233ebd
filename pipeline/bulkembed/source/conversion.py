"""A Parquet column -> the same column in the type of the run.

A conversion is accepted only if it converts back to the same values. The values must also keep their meaning: text never becomes a
number, and a moment never becomes a time without a zone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.errors import ObjectError
from bulkembed.source.column_types import holds_json_text, is_text, plain_type
from bulkembed.source.json_text import has_json, text_array
from bulkembed.source.type_union import is_bytes
from bulkembed.value_encoding import LISTS, list_items

Allowed = Callable[[pa.DataType, pa.DataType], bool]  # (type of the file, type of the run)
# Types of one family hold the same kind of values. Integers and decimals are one family, floats and decimals are not.
FAMILIES: tuple[Callable[[pa.DataType], bool], ...] = (
    lambda kind: pa.types.is_integer(kind) or pa.types.is_floating(kind),
    lambda kind: pa.types.is_integer(kind) or pa.types.is_decimal(kind),
    is_text,
    lambda kind: is_text(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind),
    pa.types.is_time,
    pa.types.is_date,
    pa.types.is_duration,
    pa.types.is_timestamp,
)


class Differs(Exception):
    """A value that changes in the conversion: (reason, row of the array or None)."""


class WrongType(ObjectError):
    """A column of an object that does not fit the type of the run."""

    def __init__(self, message: str, column: str = "") -> None:
        super().__init__(message)
        self.column = column


def may_cast(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether a type that the configuration names is allowed: every type, but a time zone must not change. Arrow itself would
    drop or add one."""
    return not (pa.types.is_timestamp(kind) and pa.types.is_timestamp(target)) or kind.tz == target.tz


def same_meaning(kind: pa.DataType, target: pa.DataType) -> bool:
    """Whether a type that follows from the values is allowed: only a type of the same family. Text may become its bytes."""
    if pa.types.is_timestamp(kind) and pa.types.is_timestamp(target):
        return (kind.tz is None) == (target.tz is None)
    becomes_text = is_text(target) and not is_text(kind)
    return not becomes_text and any(family(kind) and family(target) for family in FAMILIES)


def convert_column(
    column: pa.ChunkedArray, field: pa.Field, name: str, allowed: Allowed, where: str, object_rows: Sequence[int]
) -> pa.ChunkedArray:
    """The column in the type of the run. Raises WrongType that names both types and the first value that would change.

    `object_rows`: the row of the object of each value."""
    if column.type == field.type:
        return column
    chunks: list[pa.Array] = []
    for chunk in column.chunks:
        try:
            chunks.append(convert_chunk(chunk, field, name, allowed))
        except Differs as problem:
            reason, row = problem.args
            place = "" if row is None else f"row {object_rows[row + sum(map(len, chunks))]}: "
            wanted = "JSON text" if holds_json_text(field) else str(field.type)
            raise WrongType(f"{where}: column {name!r} has type {column.type}, but {wanted} in this run: {place}{reason}", name) from None
    return pa.chunked_array(chunks, field.type)


def convert_chunk(array: pa.Array, field: pa.Field, name: str, allowed: Allowed) -> pa.Array:
    """Raises Differs."""
    if not holds_json_text(field) or is_text(plain_type(array.type)):
        return convert_array(array, field.type, name, allowed)
    if array.null_count == len(array):
        return pa.nulls(len(array), field.type)
    if not has_json(array.type):
        raise Differs(f"{name} holds {array.type}, which has no JSON", None)
    return text_array(plain_array(array))


def plain_column(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without dictionaries, views and narrow decimals, also in its parts."""
    return pa.chunked_array([plain_array(chunk) for chunk in column.chunks], plain_type(column.type))


def plain_array(array: pa.Array) -> pa.Array:
    """The array without dictionaries, views and narrow decimals, also in its parts."""
    target = plain_type(array.type)
    return array if array.type == target else convert_array(array, target, "", may_cast)


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
    if pa.types.is_map(kind) and pa.types.is_map(target):
        return convert_maps(array, target, path, allowed)
    if not allowed(kind, target):
        raise Differs(f"{path} holds {kind}, which is not {target}", None)
    return convert_scalars(array, target, path)


def decode_array(array: pa.Array) -> pa.Array:
    """The array without dictionaries, runs, views and narrow decimals. Its parts stay as they are."""
    if pa.types.is_run_end_encoded(array.type):
        return decode_array(pc.run_end_decode(array))
    if pa.types.is_dictionary(array.type):
        values = array.dictionary.cast(plain_type(array.dictionary.type))  # Arrow's `take` does not know views
        return decode_array(pa.DictionaryArray.from_arrays(array.indices, values).dictionary_decode())
    return array if pa.types.is_nested(array.type) else array.cast(plain_type(array.type))


def convert_scalars(array: pa.Array, target: pa.DataType, path: str) -> pa.Array:
    try:
        cast = cast_values(array, target)
        if is_text(array.type) and is_bytes(target) and not is_text(target):
            return cast  # also of a text that is not UTF-8, which its bytes do not become again
        back = cast.cast(array.type)
        same = pc.or_(pc.equal(comparable(array), comparable(back)), pc.and_(is_nan(array), is_nan(back)))
    except pa.ArrowException as error:
        raise Differs(f"{path}: {str(error).splitlines()[0]}", first_refused(array, target)) from None
    changed = pc.and_(array.is_valid(), pc.invert(pc.fill_null(same, False)))
    if pc.any(changed).as_py():
        row = pc.index(changed, True).as_py()
        raise Differs(f"{path} is {array[row]!s}, in the other type {cast[row]!s}", row)
    return cast


def cast_values(array: pa.Array, target: pa.DataType) -> pa.Array:
    """As Arrow casts, but integers become each decimal that holds their values. Arrow asks for digits for any integer of the type."""
    if pa.types.is_integer(array.type) and pa.types.is_decimal(target):
        array = array.cast(pa.decimal128(20, 0))
    return array.cast(target)


def first_refused(array: pa.Array, target: pa.DataType) -> int | None:
    """The first row whose value Arrow cannot convert."""
    for row in range(len(array)):
        try:
            cast_values(array.slice(row, 1), target)
        except pa.ArrowException:
            return row
    return None


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
    ends = np.cumsum(pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False), dtype=np.int64)
    with rows_of_items(ends):
        items = convert_array(list_items(array), target.value_type, f"{path}[]", allowed)
    offsets = np.concatenate([np.zeros(1, np.int64), ends])
    large = pa.large_list(target.value_field)
    built = pa.LargeListArray.from_arrays(pa.array(offsets), items, type=large, mask=array.is_null())
    try:
        return built if target == large else built.cast(target)
    except pa.ArrowException as error:
        raise Differs(f"{path}: {str(error).splitlines()[0]}", None) from None


@contextmanager
def rows_of_items(ends: npt.NDArray[np.int64]) -> Iterator[None]:
    """Turns the row that a Differs within the context names, an item, into the row that holds the item. `ends`: (n,), of each row."""
    try:
        yield
    except Differs as problem:
        reason, item = problem.args
        raise Differs(reason, None if item is None else int(np.searchsorted(ends, item, side="right"))) from None


def convert_maps(array: pa.MapArray, target: pa.MapType, path: str, allowed: Allowed) -> pa.Array:
    offsets = array.offsets.to_numpy()
    entries = (offsets[0], offsets[-1] - offsets[0])
    with rows_of_items(offsets[1:] - offsets[0]):
        keys = convert_array(array.keys.slice(*entries), target.key_type, f"{path}.key", allowed)
        items = convert_array(array.items.slice(*entries), target.item_type, f"{path}.value", allowed)
    return pa.MapArray.from_arrays(pa.array(offsets - offsets[0]), keys, items, type=target, mask=array.is_null())
