"""Equal values have equal hashes in a source table and in the data file read back, and no two that differ have one."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from hashlib import blake2b
from typing import Any
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed import row_keys, schema
from bulkembed.dataset.parquet_file import parquet_bytes
from bulkembed.row_keys import Hashes, Keys

Values = st.SearchStrategy[Any]
SCALARS: list[tuple[pa.DataType, Values]] = [
    (pa.int8(), st.integers(-128, 127)),
    (pa.uint64(), st.integers(0, 2**64 - 1)),
    (pa.float32(), st.floats(width=32)),
    (pa.float64(), st.floats()),
    (pa.float16(), st.floats(width=16).map(np.float16)),
    (pa.bool_(), st.booleans()),
    (pa.string(), st.text(max_size=4)),
    (pa.large_string(), st.text(max_size=4)),
    (pa.binary(), st.binary(max_size=4)),
    (pa.binary(3), st.binary(min_size=3, max_size=3)),
    (pa.date32(), st.dates()),
    (pa.date64(), st.dates()),
    (pa.time32("s"), st.times().map(lambda at: at.replace(microsecond=0))),
    (pa.time64("us"), st.times()),
    (pa.timestamp("s"), st.datetimes(datetime(1970, 1, 1)).map(lambda at: at.replace(microsecond=0))),
    (pa.timestamp("ms", "Europe/Berlin"), st.integers(0, 2**40)),
    (pa.timestamp("ns"), st.integers(-(2**52), 2**52).map(lambda number: 1000 * number)),
    (pa.duration("s"), st.integers(0, 10**6).map(lambda seconds: timedelta(seconds=seconds))),
    (pa.decimal128(9, 2), st.decimals(-1000, 1000, places=2)),
    (pa.decimal256(50, 2), st.decimals(-1000, 1000, places=2)),
]
UUIDS: tuple[pa.DataType, Values] = (pa.uuid(), st.uuids().map(lambda value: value.bytes))  # Arrow makes no lists of them from Python


def nested(inner: st.SearchStrategy[tuple[pa.DataType, Values]]) -> st.SearchStrategy[tuple[pa.DataType, Values]]:
    def lists(make: Callable[[pa.DataType], pa.DataType], low: int, high: int) -> st.SearchStrategy[tuple[pa.DataType, Values]]:
        return inner.map(lambda part: (make(part[0]), st.lists(optional(part[1]), min_size=low, max_size=high)))

    structs = st.tuples(inner, inner).map(
        lambda parts: (
            pa.struct([("a", parts[0][0]), ("b", parts[1][0])]),
            st.fixed_dictionaries({"a": optional(parts[0][1]), "b": optional(parts[1][1])}),
        )
    )
    maps = inner.map(lambda part: (pa.map_(pa.string(), part[0]), st.lists(st.tuples(st.text(max_size=3), optional(part[1])), max_size=3)))
    return st.one_of(lists(pa.list_, 0, 3), lists(pa.large_list, 0, 3), lists(lambda kind: pa.list_(kind, 2), 2, 2), structs, maps)


def optional(values: Values) -> Values:
    return st.one_of(st.none(), values)


TYPES = st.one_of(st.just(UUIDS), st.recursive(st.sampled_from(SCALARS), nested, max_leaves=4))
COLUMNS = TYPES.flatmap(lambda part: st.tuples(st.just(part[0]), st.lists(optional(part[1]), min_size=1, max_size=6)))


def hashes(array: pa.Array | pa.ChunkedArray) -> list[list[int]]:
    found: list[list[int]] = kept(pa.table([array], names=["a"])).tolist()
    return found


def kept(table: pa.Table) -> Hashes:
    return row_keys.kept_hashes(table, table.column_names)


@given(COLUMNS)
def test_a_data_file_that_is_read_back_has_the_hashes_of_its_source(column: tuple[pa.DataType, list[Any]]) -> None:
    table = pa.table({"a": pa.array(column[1], column[0])})
    back = schema.table_of(parquet_bytes(table, {}))
    assert kept(back).tolist() == kept(table).tolist()


@given(COLUMNS, st.integers(0, 3))
def test_slices_and_chunks_make_no_difference(column: tuple[pa.DataType, list[Any]], cut: int) -> None:
    array = pa.array(column[1], column[0])
    whole = hashes(array)
    assert hashes(pa.chunked_array([array.slice(0, cut), array.slice(cut)], array.type)) == whole
    assert hashes(array.slice(cut)) == whole[cut:]
    assert [each for row in range(len(array)) for each in hashes(array.take(pa.array([row])))] == whole


@given(COLUMNS)
def test_values_that_differ_have_hashes_that_differ(column: tuple[pa.DataType, list[Any]]) -> None:
    array = pa.array(column[1], column[0])
    plain = array.storage if isinstance(array, pa.ExtensionArray) else array
    texts = list(map(bits, plain.to_pylist()))
    found = [tuple(each) for each in hashes(array)]
    assert [[one == other for other in texts] for one in texts] == [[one == other for other in found] for one in found]


def bits(value: Any) -> str:
    """A text that tells 0.0 from -0.0, and one NaN from another."""
    if isinstance(value, float):
        return struct.pack("<d", value).hex() if not math.isnan(value) else "nan"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(bits, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {bits(item)}' for key, item in value.items())}}}"
    return repr(value)


PAIRS: list[tuple[pa.Array, pa.Array]] = [
    (pa.array([None], pa.string()), pa.array([""], pa.string())),
    (pa.array([None], pa.int64()), pa.array([0], pa.int64())),
    (pa.array([1], pa.int64()), pa.array([1.0], pa.float64())),
    (pa.array([1], pa.int64()), pa.array(["1"], pa.string())),
    (pa.array([0.0]), pa.array([-0.0])),
    (pa.array(["a"]), pa.array([b"a"])),
    (pa.array([[None]], pa.list_(pa.string())), pa.array([[]], pa.list_(pa.string()))),
    (pa.array([None], pa.list_(pa.string())), pa.array([[]], pa.list_(pa.string()))),
    (pa.array([["ab", "c"]]), pa.array([["a", "bc"]])),
    (pa.array([[["a"], []]]), pa.array([[[], ["a"]]])),
    (pa.array([{"a": None}], pa.struct([("a", pa.int8())])), pa.array([None], pa.struct([("a", pa.int8())]))),
]


@pytest.mark.parametrize(("one", "other"), PAIRS, ids=lambda array: f"{array.type} {array.to_pylist()}")
def test_values_that_look_alike_have_hashes_that_differ(one: pa.Array, other: pa.Array) -> None:
    assert hashes(one) != hashes(other)
    assert hashes(one) == hashes(one.take(pa.array([0])))


def test_values_do_not_run_over_into_the_next_column() -> None:
    table = pa.table({"a": ["ab", "a", None, "", None], "b": ["c", "bc", "", None, None]})
    assert len(np.unique(kept(table), axis=0)) == 5


SAME: list[tuple[pa.Array, pa.DataType]] = [
    (pa.array(["a", None, "b", "a"]).dictionary_encode(), pa.string()),
    (pa.array(["a", None, "long enough for a view"], pa.string_view()), pa.string()),
    (pa.array([b"a", None], pa.binary_view()), pa.large_binary()),
    (pa.array([Decimal("1.10"), None], pa.decimal64(9, 2)), pa.decimal128(9, 2)),
    (pa.array([["a", None], None, []], pa.list_view(pa.string())), pa.large_list(pa.string())),
    (pa.array([UUID(int=5).bytes, None], pa.uuid()), pa.binary(16)),
    (pa.array([time(1, 2), None], pa.time32("s")), pa.time32("ms")),
    (pa.array([datetime(2020, 1, 1), None], pa.timestamp("s")), pa.timestamp("ms")),
    (pa.array([date(2020, 1, 1), None], pa.date32()), pa.date32()),
]


@pytest.mark.parametrize(("array", "kind"), SAME, ids=lambda value: str(getattr(value, "type", value)))
def test_encodings_of_one_value_make_no_difference(array: pa.Array, kind: pa.DataType) -> None:
    storage = array.storage if isinstance(array, pa.ExtensionArray) else array
    plain = pa.array(storage.to_pylist(), kind)
    assert hashes(array) == hashes(plain) == hashes(pa.concat_arrays([plain, plain]).slice(len(plain)))


def test_what_a_null_list_hides_makes_no_difference() -> None:
    hidden = pa.ListArray.from_arrays(pa.array([0, 2, 3]), pa.array(["x", "y", "z"]), mask=pa.array([True, False]))
    assert hashes(hidden) == hashes(pa.array([None, ["z"]], pa.list_(pa.string())))


def test_a_content_hash_is_that_of_the_data_files() -> None:
    texts = ["", "one", "日本語", "x" * 5000]
    expected = [blake2b(text.encode(), digest_size=16).digest() for text in texts]
    column = pa.chunked_array([pa.array([*texts, "more"]).slice(1, 3), pa.array(texts[:1])])
    assert row_keys.binary_of(row_keys.content_hashes(texts)).to_pylist() == expected
    assert row_keys.binary_of(row_keys.content_hashes_of_column(column)).to_pylist() == [*expected[1:], expected[0]]


def test_hashes_come_back_from_their_column() -> None:
    found = row_keys.content_hashes(map(str, range(10)))
    column = pa.chunked_array([row_keys.binary_of(found[:0]), row_keys.binary_of(found).slice(2, 5), row_keys.binary_of(found[7:])])
    np.testing.assert_array_equal(row_keys.hashes_of_column(column), found[2:])
    with pytest.raises(ValueError, match="holds no hashes"):
        row_keys.hashes_of_column(pa.chunked_array([pa.array([None], pa.binary(16))]))


def test_without_kept_columns_the_hashes_are_zero() -> None:
    table = pa.table({"id": ["a", "b"]})
    np.testing.assert_array_equal(row_keys.kept_hashes(table, []), np.zeros((2, 2), np.uint64))
    assert len(row_keys.id_hashes(table.slice(0, 0)["id"])) == len(Keys.empty()) == 0


def test_keys_are_taken_and_joined() -> None:
    ids = row_keys.content_hashes(["a", "b", "c"])
    keys = Keys(ids, ids + 1, ids + 2, np.arange(3), np.zeros(3, np.int32))
    joined = Keys.concat([keys.take(keys.rows > 0), keys.take(np.array([0]))])
    assert joined.rows.tolist() == [1, 2, 0]
    np.testing.assert_array_equal(joined.kept, keys.kept[[1, 2, 0]])
    assert [str(joined.rows.dtype), str(joined.owners.dtype), len(Keys.concat([]))] == ["int64", "int32", 0]
