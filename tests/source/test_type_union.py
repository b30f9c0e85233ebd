"""Two types -> one that holds every value of both."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.source.column_types import has_name, parse_arrow_type, plain_type
from bulkembed.source.json_text import has_json, text_array
from bulkembed.source.type_union import MAX_LEAVES, union

SCALARS = [
    *(pa.null(), pa.bool_(), pa.string(), pa.large_string(), pa.string_view(), pa.binary(), pa.large_binary(), pa.binary(4)),
    *(pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()),
    *(pa.float16(), pa.float32(), pa.float64(), pa.decimal128(5, 2), pa.decimal128(38, 0), pa.decimal256(70, 10), pa.decimal32(5, 1)),
    *(pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.timestamp("ms", "Europe/Berlin")),
    *(pa.date32(), pa.date64(), pa.time32("s"), pa.time64("ns"), pa.duration("us"), pa.uuid(), pa.dictionary(pa.int8(), pa.string())),
]
TYPES = st.recursive(
    st.sampled_from(SCALARS),
    lambda inner: (
        inner.map(pa.list_)
        | inner.map(pa.large_list)
        | inner.map(lambda kind: pa.list_(kind, 2))
        | st.dictionaries(st.sampled_from("abc"), inner, max_size=3).map(lambda fields: pa.struct(list(fields.items())))
        | inner.map(lambda kind: pa.map_(pa.string(), kind))
    ),
    max_leaves=4,
)


def fields_sorted(kind: Any) -> Any:
    """The type with the fields of structs in the order of their names."""
    if pa.types.is_struct(kind):
        return pa.struct(sorted(((part.name, fields_sorted(part.type)) for part in kind), key=lambda part: str(part[0])))
    if isinstance(kind, pa.ListType):
        return pa.list_(fields_sorted(kind.value_type))
    if pa.types.is_map(kind):
        return pa.map_(kind.key_type, fields_sorted(kind.item_type))
    return kind


@given(TYPES, TYPES)
def test_the_order_makes_no_difference(one: pa.DataType, other: pa.DataType) -> None:
    first, second = union(one, other), union(other, one)
    assert (first is None) == (second is None)
    if first is not None and second is not None:
        assert fields_sorted(first) == fields_sorted(second)
        assert union(first, one) == first, "the common type is a bound"
        assert union(first, other) == first


@given(TYPES)
def test_a_type_is_its_own_bound(kind: pa.DataType) -> None:
    assert union(kind, kind) == plain_type(kind)
    assert union(kind, pa.null()) == plain_type(kind)


@pytest.mark.parametrize(
    ("one", "other", "both"),
    [
        (pa.int8(), pa.uint8(), pa.int16()),
        (pa.int64(), pa.uint32(), pa.int64()),
        (pa.int8(), pa.uint64(), pa.decimal128(20, 0)),
        (pa.int16(), pa.float32(), pa.float32()),
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int8(), pa.float16(), pa.float16()),
        (pa.decimal128(5, 2), pa.decimal128(38, 0), pa.decimal256(40, 2)),
        (pa.decimal128(5, 2), pa.int64(), pa.decimal128(21, 2)),
        (pa.decimal128(5, 2), pa.float64(), None),
        (pa.decimal256(70, 10), pa.decimal256(76, 0), None),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.timestamp("us", "UTC"), pa.timestamp("ms", "Europe/Berlin"), pa.timestamp("us", "UTC")),
        (pa.timestamp("us", "UTC"), pa.timestamp("us"), None),
        (pa.list_(pa.int8(), 2), pa.large_list(pa.float64()), pa.list_(pa.float64())),
        (pa.struct([("a", pa.int8())]), pa.struct([("b", pa.int8())]), pa.struct([("a", pa.int8()), ("b", pa.int8())])),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.string())]), None),
        (pa.bool_(), pa.int8(), None),
        (pa.struct([(str(n), pa.int8()) for n in range(MAX_LEAVES)]), pa.struct([("x", pa.int8())]), None),
    ],
)
def test_common_types(one: pa.DataType, other: pa.DataType, both: pa.DataType | None) -> None:
    assert union(one, other) == both


@given(TYPES.filter(lambda kind: "uuid" not in str(kind)))  # Arrow makes no null of a list of UUIDs
def test_a_type_has_json_where_its_values_have_text(kind: pa.DataType) -> None:
    kind = plain_type(kind)
    if has_json(kind):
        assert text_array(pa.nulls(3, kind)).to_pylist() == [None] * 3


@pytest.mark.parametrize(
    "name", ["int64", "decimal128(20, 0)", "decimal256(60, 3)", "timestamp[us, tz=UTC]", "timestamp[us, tz=+01:00]", "time64[ns]", "bool"]
)
def test_a_type_that_column_types_can_name_is_parsed_back(name: str) -> None:
    kind = parse_arrow_type(name, "column_types.x")
    assert str(kind) == name
    assert has_name(kind)
    assert not has_name(pa.list_(kind))
