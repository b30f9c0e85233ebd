"""Values of many types in a kept column, as Parquet and as JSON lines, and what a run must make of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa

NOON = datetime(2026, 11, 26, 12, 30, 15, 123456)
SECOND = NOON.replace(microsecond=0)


@dataclass(frozen=True)
class ParquetColumn:
    """Files with a column `x`. The type of the first of `types` is that of the first file, and so on."""

    what: str
    types: Sequence[pa.DataType]
    values: Sequence[Sequence[Any]]


@dataclass(frozen=True)
class JsonColumn:
    """Rows with a field `x`; the JSON of each value, as it stands in the line. None: the row lacks the field."""

    what: str
    values: Sequence[str | None]


def one(what: str, kind: pa.DataType, *values: Any) -> ParquetColumn:
    return ParquetColumn(what, [kind], [[*values, None]])


UTC_MICROSECONDS = pa.timestamp("us", "UTC")
POINT = pa.struct([("x", pa.int32()), ("y", pa.int32())])

PARQUET = [
    one("boolean", pa.bool_(), True, False),
    one("int8", pa.int8(), -128, 127),
    one("int64", pa.int64(), -(2**63), 2**63 - 1),
    one("uint64", pa.uint64(), 2**64 - 1),
    one("half", pa.float16(), 0.5),
    one("float", pa.float32(), 0.1, float("nan"), float("inf")),
    one("double", pa.float64(), 0.1, 1e300, -0.0),
    one("decimal(38, 9)", pa.decimal128(38, 9), Decimal("12345678901234567890.123456789")),
    one("decimal(76, 2)", pa.decimal256(76, 2), Decimal("9" * 70 + ".25")),
    one("string", pa.string(), "Zürich", ""),
    one("large string", pa.large_string(), "Zürich"),
    one("string view", pa.string_view(), "Zürich"),
    one("dictionary of strings", pa.dictionary(pa.int32(), pa.string()), "de", "en", "de"),
    one("binary", pa.binary(), b"\xff\x00", b""),
    one("fixed-size binary", pa.binary(4), b"abcd"),
    one("UUID", pa.uuid(), b"0123456789abcdef"),
    one("JSON (extension)", pa.json_(), '{"a": 1}'),
    one("date", pa.date32(), date(1, 1, 1), date(9999, 12, 31)),
    one("time of day, microseconds", pa.time64("us"), time(23, 59, 59, 999999)),
    one("timestamp, milliseconds", pa.timestamp("ms"), NOON.replace(microsecond=123000)),
    one("timestamp, microseconds with a zone", UTC_MICROSECONDS, NOON.replace(tzinfo=UTC)),
    one("timestamp, nanoseconds", pa.timestamp("ns"), NOON),
    one("duration", pa.duration("us"), timedelta(days=1, microseconds=1)),
    one("list of strings", pa.list_(pa.string()), ["a", None], []),
    one("fixed-size list", pa.list_(pa.float32(), 2), [1.0, 2.0]),
    one("struct", POINT, {"x": 1, "y": None}),
    one("list of structs", pa.list_(POINT), [{"x": 1, "y": 2}], []),
    one("map", pa.map_(pa.string(), pa.int64()), [("a", 1), ("b", None)]),
    one("nothing but nulls", pa.null()),
    ParquetColumn("nothing but nulls, then string", [pa.null(), pa.string()], [[None], ["de"]]),
    ParquetColumn("int32, then int64", [pa.int32(), pa.int64()], [[1], [2**40]]),
    ParquetColumn("int64, then int32", [pa.int64(), pa.int32()], [[2**40], [1]]),
    ParquetColumn("int64, then uint64 beyond it", [pa.int64(), pa.uint64()], [[-1], [2**63]]),
    ParquetColumn("int64, then double", [pa.int64(), pa.float64()], [[1], [2.5]]),
    ParquetColumn("int64 beyond 53 bits, then double", [pa.int64(), pa.float64()], [[2**53 + 1], [0.5]]),
    ParquetColumn("float, then double", [pa.float32(), pa.float64()], [[0.5], [0.1]]),
    ParquetColumn("string, then dictionary", [pa.string(), pa.dictionary(pa.int8(), pa.string())], [["a"], ["b"]]),
    ParquetColumn("string, then int64", [pa.string(), pa.int64()], [["a"], [7]]),
    ParquetColumn("milliseconds, then nanoseconds", [pa.timestamp("ms"), pa.timestamp("ns")], [[SECOND], [NOON]]),
    ParquetColumn("date, then timestamp", [pa.date32(), pa.timestamp("us")], [[date(2026, 1, 1)], [NOON]]),
    ParquetColumn("struct, then one with another field", [pa.struct([("x", pa.int32())]), POINT], [[{"x": 1}], [{"x": 1, "y": 2}]]),
    ParquetColumn("boolean, then string", [pa.bool_(), pa.string()], [[True], ["yes"]]),
]

JSON = [
    JsonColumn("integers", ["1", "-2", None]),
    JsonColumn("an integer of 21 digits", ["123456789012345678901", "1"]),
    JsonColumn("integers, then a fraction", ["1", "2.5"]),
    JsonColumn("an integer beyond 53 bits and a fraction", ["9007199254740993", "0.5"]),
    JsonColumn("17 digits of a fraction", ["0.12345678901234567", "0.5"]),
    JsonColumn("numbers and texts", ["7", '"7"']),
    JsonColumn("true and texts", ["true", '"yes"']),
    JsonColumn("nulls, then texts", ["null", None, '"de"']),
    JsonColumn("nothing but nulls", ["null", None]),
    JsonColumn("empty objects", ["{}", "{}"]),
    JsonColumn("objects of one shape", ['{"a": 1}', '{"a": null}']),
    JsonColumn("objects of several shapes", ['{"a": 1}', '{"a": 1, "lang": "de"}', '{"a": "x"}']),
    JsonColumn("lists", ["[1, 2]", "[]", "null"]),
    JsonColumn("lists of mixed values", ['[1, "a"]', "[null]"]),
    JsonColumn("lone surrogates", ['"a\\ud800b"', '"fine"']),
    JsonColumn("NaN and Infinity", ["NaN", "-Infinity", "0.5"]),
    JsonColumn("dates as texts", ['"2026-11-26"', '"2026-11-26T12:00:00Z"']),
]
