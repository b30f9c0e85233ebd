"""Arrow values -> bytes that are equal only for equal values of one type.

Each value is a byte that says whether there is one, its length where the type has no fixed one, and its bytes or its parts. No value
is therefore the beginning of another, and values can stand one behind the other. How Arrow stores the values makes no difference:
chunks, slices, dictionaries, views, extension types. What Parquet changes makes none: it has no times in seconds, and one type of dates.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
TEXTS = {pa.string(), pa.large_string(), pa.string_view()}
WRITTEN = {pa.time32("s"): pa.time32("ms"), pa.date64(): pa.date32()}  # how Parquet has these types
BYTES = {pa.binary(), pa.large_binary(), pa.binary_view()}


def encode_rows(columns: Sequence[pa.Array]) -> pa.LargeBinaryArray:
    """The encoded values of each row, one behind the other. `columns`: at least one, of equal length."""
    parts = [encode_array(column) for column in columns]
    return parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, pa.scalar(b"", pa.large_binary()))


def encode_array(array: pa.Array) -> pa.LargeBinaryArray:
    """One encoded value for each value of the array, without nulls."""
    array = plain_array(array)
    kind = array.type
    if kind in (pa.large_string(), pa.large_binary()):
        return encode_texts(array)
    if pa.types.is_struct(kind):
        head = binary_rows(valid_bytes(array)[:, None])
        return pc.binary_join_element_wise(head, *map(encode_array, array.flatten()), pa.scalar(b"", pa.large_binary()))
    if isinstance(kind, LISTS):
        return encode_lists(array)
    if pa.types.is_null(kind):
        return binary_rows(np.zeros((len(array), 1), np.uint8))
    return encode_fixed_width(array)


def plain_array(array: pa.Array) -> pa.Array:
    """The array without extension types, dictionaries, maps and types that Parquet lacks. Its parts stay as they are."""
    kind = array.type
    if isinstance(kind, pa.BaseExtensionType):
        return plain_array(array.storage)
    if pa.types.is_dictionary(kind):
        return plain_array(array.dictionary.take(array.indices))
    target = list_of_entries(kind) if pa.types.is_map(kind) else kind if pa.types.is_nested(kind) else scalar_type(kind)
    return array if target == kind else array.cast(target, safe=False)


def encode_texts(array: pa.Array) -> pa.LargeBinaryArray:
    values = pc.fill_null(array.cast(pa.large_binary()), b"")
    head = np.empty((len(array), 9), np.uint8)
    head[:, 0] = valid_bytes(array)
    head[:, 1:] = bytes_of(np.diff(offsets_of(values)))
    return pc.binary_join_element_wise(binary_rows(head), values, pa.scalar(b"", pa.large_binary()))


def encode_fixed_width(array: pa.Array) -> pa.LargeBinaryArray:
    """Numbers, times, decimals, booleans and bytes of one length. A null is zeros."""
    if pa.types.is_boolean(array.type):
        array = array.cast(pa.uint8())
    width = array.type.bit_width // 8
    rows = np.zeros((len(array), 1 + width), np.uint8)
    if len(array) and width:
        start = array.offset * width
        rows[:, 1:] = np.frombuffer(array.buffers()[1], np.uint8)[start : start + len(array) * width].reshape(-1, width)
    rows[:, 0] = valid_bytes(array)
    rows[rows[:, 0] == 0] = 0
    return binary_rows(rows)


def encode_lists(array: pa.Array) -> pa.LargeBinaryArray:
    """Lists: the items of each stand one behind the other already, in the bytes of all items."""
    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    head = np.empty((len(array), 9), np.uint8)
    head[:, 0] = valid_bytes(array)
    head[:, 1:] = bytes_of(lengths)
    items = encode_array(list_items(array))
    ends = np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)])
    joined = binary_array(offsets_of(items)[ends], items.buffers()[2])
    return pc.binary_join_element_wise(binary_rows(head), joined, pa.scalar(b"", pa.large_binary()))


def list_items(array: pa.Array) -> pa.Array:
    """The items of all lists, one behind the other. Arrow's `flatten` knows no nested extension types where every list is null."""
    return array.values.slice(0, 0) if array.null_count == len(array) else array.flatten()


def valid_bytes(array: pa.Array) -> npt.NDArray[np.uint8]:
    """1 for each value, 0 for each null."""
    if not array.null_count:
        return np.ones(len(array), np.uint8)
    valid: npt.NDArray[np.uint8] = array.is_valid().to_numpy(zero_copy_only=False).astype(np.uint8)
    return valid


def bytes_of(numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
    """Shape (n, 8): each number in eight bytes, the lowest first."""
    return np.ascontiguousarray(numbers, "<i8").view(np.uint8).reshape(-1, 8)


def binary_rows(rows: npt.NDArray[np.uint8]) -> pa.LargeBinaryArray:
    """An array of binaries of one length. `rows`: (n, length), length at least 1."""
    return binary_array(np.arange(len(rows) + 1, dtype=np.int64) * rows.shape[1], pa.py_buffer(np.ascontiguousarray(rows)))


def binary_array(offsets: npt.NDArray[np.int64], data: pa.Buffer | None) -> pa.LargeBinaryArray:
    """The binaries between each two offsets of the data."""
    return pa.Array.from_buffers(pa.large_binary(), len(offsets) - 1, [None, pa.py_buffer(offsets), data])


def offsets_of(array: pa.LargeBinaryArray) -> npt.NDArray[np.int64]:
    """Shape (n + 1,): where each binary begins in `array.buffers()[2]`, and where the last one ends."""
    if not len(array):
        return np.zeros(1, np.int64)
    return np.frombuffer(array.buffers()[1], np.int64)[array.offset : array.offset + len(array) + 1]


def list_of_entries(kind: pa.MapType) -> pa.ListType:
    return pa.list_(pa.struct([kind.key_field, kind.item_field]))


def scalar_type(kind: pa.DataType) -> pa.DataType:
    """The type in which values of a type without parts are encoded."""
    if kind in TEXTS:
        return pa.large_string()
    if kind in BYTES:
        return pa.large_binary()
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_timestamp(kind) and kind.unit == "s":
        return pa.timestamp("ms", kind.tz)
    return WRITTEN.get(kind, kind)


def type_text(kind: pa.DataType) -> str:
    """A text for the type. It is the same for types whose equal values are encoded alike."""
    if isinstance(kind, pa.BaseExtensionType):
        return type_text(kind.storage_type)
    if pa.types.is_dictionary(kind):
        return type_text(kind.value_type)
    if pa.types.is_map(kind):
        return type_text(list_of_entries(kind))
    if pa.types.is_nested(kind):
        parts = ", ".join(type_text(kind.field(number).type) for number in range(kind.num_fields))
        return f"{'struct' if pa.types.is_struct(kind) else 'list'}<{parts}>"
    return str(scalar_type(kind))
