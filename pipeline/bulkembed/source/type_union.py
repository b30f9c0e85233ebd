"""Two Arrow types -> one type that holds every value of both, so that converting back gives the same values. Pure.

The order of the two makes no difference to the type, but for the order of struct fields."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pyarrow as pa

from bulkembed.source.column_types import is_text, plain_type
from bulkembed.value_encoding import LISTS

MAX_LEAVES = 1000  # of one column: values that have ever new keys are JSON text
UNITS = ("s", "ms", "us", "ns")  # from coarse to fine
INT_BITS = {pa.int8(): 7, pa.int16(): 15, pa.int32(): 31, pa.int64(): 63, pa.uint8(): 8, pa.uint16(): 16, pa.uint32(): 32, pa.uint64(): 64}
INT_DIGITS = {7: 3, 8: 3, 15: 5, 16: 5, 31: 10, 32: 10, 63: 19, 64: 20}
FLOATS = {pa.float16(): 11, pa.float32(): 24, pa.float64(): 53}  # bits of the integers that each holds
BYTES: tuple[Callable[[pa.DataType], bool], ...] = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)


class NoCommonType(Exception):
    """No type holds the values of both types. They can only be text."""


def union(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The common type, without dictionaries, views and narrow decimals; None where there is none. A part without any value stays null.

    Integers and doubles have the type double, which may not hold all of the integers: the values are compared when they are converted."""
    try:
        kind = common(plain_type(one), plain_type(other))
    except NoCommonType:
        return None
    return kind if leaves(kind) <= MAX_LEAVES else None


def common(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Raises NoCommonType."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    for test, unite in UNIONS:
        if test(one) and test(other):
            return unite(one, other)
    raise NoCommonType


def leaves(kind: pa.DataType) -> int:
    return sum(leaves(kind.field(number).type) for number in range(kind.num_fields)) or 1


def is_number(kind: pa.DataType) -> bool:
    return kind in INT_BITS or kind in FLOATS


def is_exact_number(kind: pa.DataType) -> bool:
    return kind in INT_BITS or pa.types.is_decimal(kind)


def is_bytes(kind: pa.DataType) -> bool:
    return is_text(kind) or any(test(kind) for test in BYTES)


def is_list(kind: pa.DataType) -> bool:
    return isinstance(kind, LISTS)


def numbers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    if one in FLOATS or other in FLOATS:
        bits = max(FLOATS.get(kind) or INT_BITS[kind] for kind in (one, other))
        return next((kind for kind, held in FLOATS.items() if held >= bits), pa.float64())
    return integers(one, other)


def integers(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    signed = pa.types.is_signed_integer(one) or pa.types.is_signed_integer(other)
    bits = max(INT_BITS[one], INT_BITS[other])
    fitting = (kind for kind, held in INT_BITS.items() if held >= bits and pa.types.is_signed_integer(kind) == signed)
    return next(fitting, pa.decimal128(20, 0))  # 64 bits without a sign beside negative numbers


def decimals(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    shapes = [(kind.precision, kind.scale) if pa.types.is_decimal(kind) else (INT_DIGITS[INT_BITS[kind]], 0) for kind in (one, other)]
    scale = max(scale for _, scale in shapes)
    precision = scale + max(precision - scale for precision, scale in shapes)
    if precision > 76:
        raise NoCommonType
    wide = precision > 38 or pa.types.is_decimal256(one) or pa.types.is_decimal256(other)
    return (pa.decimal256 if wide else pa.decimal128)(precision, scale)


def texts(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.string()


def bytes_type(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.binary()


def dates(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.date32()


def finest(one: Any, other: Any) -> str:
    return str(max(one.unit, other.unit, key=UNITS.index))


def moments(one: pa.TimestampType, other: pa.TimestampType) -> pa.DataType:
    """A zone changes how a moment is shown, and not the moment. Times without a zone are no moments."""
    if (one.tz is None) != (other.tz is None):
        raise NoCommonType
    return pa.timestamp(finest(one, other), one.tz if one.tz == other.tz else "UTC")


def times(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    unit = finest(one, other)
    return pa.time32(unit) if unit in ("s", "ms") else pa.time64(unit)


def durations(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.duration(finest(one, other))


def structs(one: pa.StructType, other: pa.StructType) -> pa.DataType:
    """The fields of both, by name."""
    fields = [{part.name: part.type for part in kind} for kind in (one, other)]
    if any(len(known) < len(list(kind)) for known, kind in zip(fields, (one, other), strict=True)):
        raise NoCommonType  # two fields of one name
    names = dict.fromkeys([*fields[0], *fields[1]])
    return pa.struct([(name, common(fields[0].get(name, pa.null()), fields[1].get(name, pa.null()))) for name in names])


def lists(one: pa.DataType, other: pa.DataType) -> pa.DataType:
    return pa.list_(common(one.value_type, other.value_type))


def maps(one: pa.MapType, other: pa.MapType) -> pa.DataType:
    key = common(one.key_type, other.key_type)
    return one if pa.types.is_null(key) else pa.map_(key, common(one.item_type, other.item_type))


# The first line whose test holds for both types has their common type.
UNIONS: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any, Any], pa.DataType]], ...] = (
    (is_number, numbers),
    (is_exact_number, decimals),
    (is_text, texts),
    (is_bytes, bytes_type),
    (pa.types.is_date, dates),
    (pa.types.is_timestamp, moments),
    (pa.types.is_time, times),
    (pa.types.is_duration, durations),
    (pa.types.is_struct, structs),
    (is_list, lists),
    (pa.types.is_map, maps),
)
