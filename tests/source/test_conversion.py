"""Ids and kept columns come back as they are in the source, or the file fails and shows both types: Parquet."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkembed import schema
from bulkembed.errors import ConfigError, ObjectError
from bulkembed.records import Documents
from bulkembed.source import conversion, reader
from bulkembed.source.column_types import holds_json_text, json_text_field, plain_type
from bulkembed.source.columns import require_columns
from bulkembed.source.conversion import WrongType
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_objects
from tests.support.models import recipe
from tests.support.reading import STORE, carried_of, config, read, read_settled, shards_of
from tests.support.runs import in_one_process, read_dataset, simulated

NAN = float("nan")
YEAR_11103 = pa.array([2**58], pa.timestamp("us"))
MAPS = pa.map_(pa.string(), pa.list_(pa.int64()))


def read_pair(folder: Path, first: pa.Array, second: pa.Array, **changes: Any) -> list[Documents]:
    """Two files, whose kept columns are these."""
    for name, column in (("a", first), ("b", second)):
        pq.write_table(pa.table({"id": range(len(column)), "text": ["t"] * len(column), "kept": column}), folder / f"{name}.parquet")
    return read_settled(folder, config(keep_columns=["kept"], **changes))


def read_second(folder: Path, first: pa.Array, second: pa.Array) -> Documents:
    """The second of two files, in the types of the first one, as a later night reads it."""
    read_pair(folder, first, first)
    carried = carried_of(source_objects(STORE, str(folder / "a.parquet")), config(keep_columns=["kept"]))
    pq.write_table(pa.table({"id": range(len(second)), "text": ["t"] * len(second), "kept": second}), folder / "b.parquet")
    (shard,) = shards_of(folder / "b.parquet")
    return reader.read_documents(STORE, shard, recipe(config(keep_columns=["kept"])), carried)


def utc(kind: str, zone: str | None = "UTC") -> pa.DataType:
    return pa.timestamp(kind, zone)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([7]), pa.array(["007"])),
        (pa.array([7]), pa.array(["7"])),
        (pa.array(["7"]), pa.array([7])),
        (pa.array([7.0]), pa.array([2**53 + 1])),
        (pa.array([7]), pa.array([2.5])),
        (pa.array([7], pa.int8()), pa.array([300])),
        (pa.array([1.5], pa.float32()), pa.array([1e300])),
        (pa.array([1.5], pa.float32()), pa.array([0.1])),
        (pa.array([Decimal("1.5")]), pa.array([1.5])),
        (pa.array([Decimal("1.5")]), pa.array([Decimal("1.55")])),
        (pa.array([True]), pa.array([1])),
        (pa.array(["a"]), pa.array([b"\xff"])),
        (pa.array([1], utc("us")), pa.array([1], utc("us", None))),
        (pa.array([1], utc("us", None)), pa.array([1], utc("us"))),
        (pa.array([1], utc("ms")), pa.array([1], utc("us"))),
        (pa.array([date(2026, 1, 1)]), pa.array([datetime(2026, 1, 1, 12)])),
        (pa.array([date(2026, 1, 1)]), pa.array([datetime(2026, 1, 1)])),
        (pa.array([{"a": 1}]), pa.array([{"a": 1, "lang": "de"}])),
        (pa.array([[{"a": 1}]]), pa.array([[{"a": 1, "lang": "de"}]])),
        (pa.array([[1]]), pa.array([[1.5]])),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), pa.array([[1, 2, 3]])),
        (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())), pa.array([[("a", 300)]], pa.map_(pa.string(), pa.int64()))),
    ],
    ids=lambda column: str(column.type),
)
def test_a_file_whose_values_would_change_fails_and_shows_both_types(tmp_path: Path, first: pa.Array, second: pa.Array) -> None:
    with pytest.raises(WrongType) as raised:
        read_second(tmp_path, first, second)
    stored = [pq.read_schema(tmp_path / name).field("kept").type for name in ("a.parquet", "b.parquet")]
    assert f"b.parquet: column 'kept' has type {stored[1]}, but {plain_type(stored[0])} in this run" in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([7]), pa.array([8], pa.uint8())),
        (pa.array([7]), pa.array([8.0])),
        (pa.array([7.5]), pa.array([8, None])),
        (pa.array([0.5]), pa.array([NAN, -0.0, None, 1.5], pa.float32())),
        (pa.array([0.5], pa.float32()), pa.array([NAN, 1.5])),
        (pa.array(["a"]), pa.array(["b", None, "b"]).dictionary_encode()),
        (pa.array(["a"]).dictionary_encode(), pa.array(["b"], pa.large_string())),
        (pa.array([1], utc("us")), pa.array([5], utc("ms"))),
        (pa.array([Decimal("1.50")], pa.decimal128(30, 2)), pa.array([2])),
        (pa.array([{"a": 1, "b": "x"}]), pa.array([{"b": "y"}, None], pa.struct([("b", pa.large_string())]))),
        (pa.array([{"a": 1}]), pa.array([{"c": None, "a": 2}], pa.struct([("c", pa.int64()), ("a", pa.int8())]))),
        (pa.array([[1.5]]), pa.array([[1], None, [], [2, None]], pa.large_list(pa.int8()))),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), pa.array([[3, 4], None])),
        (pa.array([[{"a": 1}]]), pa.array([[{"a": 2}, None], None])),
        (pa.nulls(2), pa.array(["de", "en"])),
        (pa.array(["de"]), pa.nulls(2)),
        (pa.array([{"a": 1}]), pa.nulls(2)),
        (pa.array([{"a": None, "b": []}]), pa.array([{"a": "x", "b": [1.5]}])),
        (pa.array([[{"a": None}]]), pa.array([[{"a": None}], [None]])),
        (pa.array(["a", None], pa.string_view()), pa.array(["b", None])),
        (pa.array(["a"], pa.large_string()), pa.array(["b", None], pa.string_view())),
        (pa.array([b"\xff", None], pa.binary_view()), pa.array([b"a"])),
        (pa.array([[1, 2], None, [], [3]], pa.list_view(pa.int8())), pa.array([[4], None], pa.large_list_view(pa.int64()))),
        (pa.array([{"a": ["b"]}], pa.struct([("a", pa.list_view(pa.string_view()))])), pa.array([{"a": ["c", None]}, None])),
        (pa.array([Decimal("1.5"), None], pa.decimal32(5, 2)), pa.array([Decimal("2.5")], pa.decimal64(9, 2))),
        (pa.array([7]), pa.array([2.5])),
        (pa.array([7], pa.int8()), pa.array([300])),
        (pa.array([-1]), pa.array([2**64 - 1], pa.uint64())),
        (pa.array([1.5], pa.float32()), pa.array([1e300])),
        (pa.array([Decimal("1.5")]), pa.array([Decimal("1.55")])),
        (pa.array([Decimal("1.5")]), pa.array([2**63 - 1])),
        (pa.array(["a"]), pa.array([b"a"])),
        (pa.array([1], utc("us")), pa.array([1], utc("us", "Europe/Berlin"))),
        (pa.array([1], utc("ms")), pa.array([1], utc("us"))),
        (pa.array([253402300799 * 10**6], utc("us")), pa.array([1000], utc("ns"))),
        (pa.array([{"a": 1}]), pa.array([{"a": 1, "lang": "de"}])),
        (pa.array([[{"a": 1}]]), pa.array([[{"a": 1, "lang": "de"}]])),
        (pa.array([[1]]), pa.array([[1.5]])),
        (pa.array([[1, 2]], pa.list_(pa.int8(), 2)), pa.array([[1, 2, 3]])),
        (pa.array([[("a", 1)], None], pa.map_(pa.string(), pa.int8())), pa.array([None, [("b", 2**40)]], pa.map_(pa.string(), pa.int64()))),
        (pa.array([[("a", [1])]], pa.map_(pa.string_view(), pa.list_(pa.int8()))), pa.array([None, [("b", [2**40]), ("c", None)]], MAPS)),
    ],
    ids=lambda column: str(column.type),
)
def test_values_of_another_type_come_back_the_same(tmp_path: Path, first: pa.Array, second: pa.Array) -> None:
    found = read_pair(tmp_path, first, second)
    assert same(plain(first), plain(found[0].rows["kept"]))
    assert same(plain(second), plain(found[1].rows["kept"]))
    assert found[0].rows.schema == found[1].rows.schema


def plain(column: Any) -> list[Any]:
    """Values to compare: moments as numbers, since Python has no nanoseconds; text as its bytes."""
    if pa.types.is_timestamp(column.type):
        return list(column.cast(pa.timestamp("us")).cast(pa.int64()).to_pylist())
    return [encoded(value) for value in column.to_pylist()]


def encoded(value: Any) -> Any:
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, dict):
        return {key: encoded(item) for key, item in value.items()}
    return value.encode() if isinstance(value, str) else value


@pytest.mark.parametrize(
    ("first", "second", "back"),
    [
        (pa.array([7]), pa.array(["007"]), ["7", "007"]),
        (pa.array(["7"]), pa.array([7]), ["7", "7"]),
        (pa.array([2**53 + 1]), pa.array([2.5, NAN]), ["9007199254740993", "2.5", "NaN"]),
        (pa.array([Decimal("1.50")]), pa.array([0.1]), ["1.50", "0.1"]),
        (pa.array([True, None]), pa.array([1]), ["true", None, "1"]),
        (pa.array([1], utc("us")), pa.array([1], utc("us", None)), ["1970-01-01T00:00:00.000001Z", "1970-01-01T00:00:00.000001"]),
        (pa.array([date(2026, 1, 1)]), pa.array([datetime(2026, 1, 1)]), ["2026-01-01", "2026-01-01T00:00:00.000000"]),
        (
            pa.array([2**58], utc("us", None)),
            pa.array([1], utc("ns", None)),
            ["11103-08-29T17:22:31.711744", "1970-01-01T00:00:00.000000001"],
        ),
        (pa.array([[1, None]]), pa.array([{"a": 'b"', "c": [date(2026, 1, 1)]}]), ["[1,null]", '{"a":"b\\"","c":["2026-01-01"]}']),
        (pa.array([[("a", 1.5)]], pa.map_(pa.string(), pa.float32())), pa.array(["x"]), ['{"a":1.5}', "x"]),
        (pa.array([[(1, 2)]], pa.map_(pa.int8(), pa.int8())), pa.array(["x"]), ["[[1,2]]", "x"]),
        (pa.array(["a"]).dictionary_encode(), pa.array([1], pa.uint8()).dictionary_encode(), ["a", "1"]),
        (pa.array([[{"a": 1}]]), pa.array([[{"a": "x"}]]), ['[{"a":1}]', '[{"a":"x"}]']),
    ],
    ids=lambda column: str(getattr(column, "type", "")),
)
def test_what_has_no_common_type_is_json_text(tmp_path: Path, first: pa.Array, second: pa.Array, back: list[Any]) -> None:
    for columns, expected in (((first, second), back), ((second, first), back[len(first) :] + back[: len(first)])):
        found = read_pair(tmp_path, *columns)
        assert [value for part in found for value in part.rows["kept"].to_pylist()] == expected
        assert all(holds_json_text(part.rows.schema.field("kept")) and not part.rejects.num_rows for part in found)


@pytest.mark.parametrize(("one", "other"), [(pa.array([b"a"]), pa.array([1])), (pa.array([1], pa.duration("s")), pa.array(["a"]))])
def test_what_has_neither_a_type_nor_a_text_is_refused(tmp_path: Path, one: pa.Array, other: pa.Array) -> None:
    with pytest.raises(ConfigError, match=r"column 'kept' has type .* in .*a.parquet, and .* in .*b.parquet: no type holds both"):
        read_pair(tmp_path, one, other)


def same(value: Any, back: Any) -> bool:
    if isinstance(value, dict) and isinstance(back, dict):
        return all(same(value.get(key), back.get(key)) for key in {*value, *back})
    if isinstance(value, list) and isinstance(back, list):
        return len(value) == len(back) and all(map(same, value, back))
    if isinstance(value, float) and isinstance(back, float) and value != value:
        return back != back
    return bool(value == back) and isinstance(value, bool) == isinstance(back, bool)


def columns_of(kind: pa.DataType, values: st.SearchStrategy[Any]) -> st.SearchStrategy[pa.Array]:
    return st.lists(st.none() | values, min_size=1, max_size=4).map(lambda column: pa.array(column, kind))


INTEGERS = st.integers(0, 127) | st.integers(-(2**63), 2**63 - 1)
FLOATS = st.integers(-9, 9).map(float) | st.floats(allow_nan=True)
WORDS = st.sampled_from(["7", "007", "1.5", "true", "2026-01-01", "x", ""])
SIMPLE = st.one_of(
    columns_of(pa.int8(), st.integers(0, 127)),
    columns_of(pa.int64(), INTEGERS),
    columns_of(pa.uint64(), st.integers(0, 2**64 - 1)),
    columns_of(pa.float16(), st.integers(-9, 9).map(lambda each: np.float16(each / 2))),
    columns_of(pa.float32(), st.floats(width=32)),
    columns_of(pa.float64(), FLOATS),
    columns_of(pa.bool_(), st.booleans()),
    columns_of(pa.string(), WORDS),
    columns_of(pa.large_string(), WORDS),
    columns_of(pa.string(), WORDS).map(lambda column: column.dictionary_encode()),
    columns_of(pa.binary(), WORDS.map(str.encode)),
    columns_of(pa.binary(2), st.binary(min_size=2, max_size=2)),
    columns_of(pa.decimal128(30, 2), st.integers(-999, 999).map(lambda each: Decimal(each) / 4 if each % 2 else Decimal(each))),
    columns_of(pa.date32(), st.dates()),
    columns_of(pa.time64("us"), st.times()),
    columns_of(pa.time32("ms"), st.integers(0, 86_399_999)),
    columns_of(pa.duration("us"), st.timedeltas(timedelta(-9), timedelta(9))),
    columns_of(utc("us"), st.integers(-(10**12), 10**12)),
    columns_of(utc("ms", None), st.integers(-(10**12), 10**12)),
    st.integers(1, 3).map(pa.nulls),
)
ANY = st.one_of(
    SIMPLE,
    SIMPLE.map(lambda column: pa.StructArray.from_arrays([column], ["a"])),
    st.tuples(columns_of(pa.int64(), INTEGERS), columns_of(pa.string(), WORDS)).map(
        lambda pair: pa.StructArray.from_arrays([each.take(pa.array([0])) for each in pair], ["a", "b"])
    ),
    SIMPLE.map(lambda column: pa.ListArray.from_arrays(pa.array([0, len(column)], pa.int32()), column)),
)


@settings(max_examples=300, deadline=None)
@given(ANY, ANY)
def test_any_two_types_give_the_same_values_or_their_text(
    tmp_path_factory: pytest.TempPathFactory, first: pa.Array, second: pa.Array
) -> None:
    folder = tmp_path_factory.getbasetemp() / "pairs"
    folder.mkdir(exist_ok=True)
    try:
        found = read_pair(folder, first, second)
    except ConfigError as error:
        assert "no type holds both" in str(error)
        assert "\n" not in str(error)
        return
    for column, part in zip((first, second), found, strict=True):
        back = part.rows["kept"]
        assert not part.rejects.num_rows
        assert part.rows.schema.field("kept").equals(found[0].rows.schema.field("kept"), check_metadata=True)
        expected = conversion.convert_chunk(column, JSON, "kept", conversion.may_cast) if is_json_text(part) else column
        assert same(plain(expected), plain(back))


JSON = json_text_field("kept")


def is_json_text(part: Documents) -> bool:
    return holds_json_text(part.rows.schema.field("kept"))


@pytest.mark.parametrize(("kind", "back"), [("string", ["7", "8"]), ("double", [7, 8]), ("int64", [7, 8])])
def test_column_types_names_a_type_for_files_that_differ(tmp_path: Path, kind: str, back: list[Any]) -> None:
    found = read_pair(tmp_path, pa.array([7]), pa.array(["8"]) if kind != "double" else pa.array([8.0]), column_types={"kept": kind})
    assert [value for part in found for value in part.rows["kept"].to_pylist()] == back


def test_columns_that_are_null_throughout_have_no_type(tmp_path: Path) -> None:
    found = read_pair(tmp_path, pa.nulls(1), pa.nulls(1))
    assert [part.rows["kept"].to_pylist() for part in found] == [[None], [None]]
    pq.write_table(pa.table({"id": [1], "title": pa.nulls(1), "text": ["t"]}), tmp_path / "a.parquet")
    (item, _) = source_objects(STORE, str(tmp_path))
    cfg = config(text_columns=["title", "text"], template="{title}|{text}")
    require_columns(recipe(cfg), item, layout_of(STORE, item))
    (found_texts,) = (part.texts for part in read(tmp_path / "a.parquet", cfg))
    assert found_texts == ["|t"]


def careless(values: list[bytes | None]) -> pa.Array:
    """Bytes under a string type, as Spark writes them."""
    raw = pa.array(values, pa.binary())
    return pa.StringArray.from_buffers(len(values), raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])


@pytest.mark.parametrize("shape", ["id", "kept", "view", "struct", "list", "map"])
def test_bytes_that_are_no_text_never_reach_the_output(tmp_path: Path, shape: str) -> None:
    bad = careless([b"ok", b"caf\xe9", None, b"caf\xc3\xa9"])
    column = {
        "view": bad.cast(pa.string_view()),
        "struct": pa.StructArray.from_arrays([bad], ["a"]),
        "list": pa.ListArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), bad),
        "map": pa.MapArray.from_arrays(pa.array([0, 1, 2, 3, 4], pa.int32()), pa.array(["k"] * 4), bad),
    }.get(shape, bad)
    table = pa.table({"id": bad if shape == "id" else pa.array([1, 2, 3, 4]), "text": list("abcd"), "kept": column})
    pq.write_table(table, tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet", config(keep_columns=["kept"]))
    found.rows.validate(full=True)
    found.rejects.validate(full=True)
    if shape == "id":
        assert found.texts == ["a", "d"]
        assert [(each["id"], each["row"], each["reason"]) for each in found.rejects.to_pylist()] == [
            (None, 1, "undecodable"),
            (None, 2, "null_id"),
        ]
        assert "caf\\xe9', not UTF-8" in found.rejects["detail"][0].as_py()
        return
    assert found.texts == list("abcd")
    wraps: dict[str, Callable[[str | None], Any]] = {
        "struct": lambda text: {"a": text},
        "list": lambda text: [text],
        "map": lambda text: [("k", text)],
    }
    texts = ("ok", "caf\ufffd", None, "café")
    assert found.rows["kept"].to_pylist() == ([wraps[shape](text) for text in texts] if shape in wraps else list(texts))


def test_uuids_come_back_as_uuids(tmp_path: Path) -> None:
    ids = [uuid.UUID(int=number) for number in range(3)]
    column = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([each.bytes for each in ids], pa.binary(16)))
    pq.write_table(pa.table({"id": column, "text": ["a", None, "c"]}), tmp_path / "a.parquet", store_schema=False)
    (found,) = read(tmp_path / "a.parquet", config())
    assert found.rows["id"].to_pylist() == [ids[0], ids[2]]
    assert found.rejects["id"].to_pylist() == [ids[1]]


def test_lists_of_uuids_come_back(tmp_path: Path, qwen: str) -> None:
    uuids = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, b"b" * 16], pa.binary(16)))
    lists = pa.ListArray.from_arrays(pa.array([0, 2, 2]), uuids)
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "text": ["t", "u"], "kept": lists}), tmp_path / "in/a.parquet")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["kept"]))
    assert read_dataset(tmp_path / "out")["kept"].to_pylist() == lists.to_pylist()


TENSOR = pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.int8(), [1]), pa.array([[1]], pa.list_(pa.int8(), 1)))


def test_an_id_that_is_no_scalar_is_refused_before_any_work(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": TENSOR, "text": ["t"]}), tmp_path / "a.parquet")
    with pytest.raises(ConfigError, match="id_column: 'id'"):
        read(tmp_path / "a.parquet", config())


def test_a_page_with_a_flipped_byte_is_an_error_of_its_object(tmp_path: Path) -> None:
    table = pa.table({"id": range(1000), "text": [f"document {number}" for number in range(1000)]})
    path = tmp_path / "a.parquet"
    pq.write_table(table, path, write_page_checksum=True, compression="none", use_dictionary=False)
    raw = bytearray(path.read_bytes())
    raw[raw.index(b"document 500")] ^= 1
    path.write_bytes(raw)
    (shard,) = shards_of(path)
    with pytest.raises(ObjectError, match=r"a\.parquet: rows 0-1000 are unreadable: .*checksum"):
        reader.read_documents(STORE, shard, recipe(config()), carried_of(source_objects(STORE, str(path)), config()))


def test_nan_in_a_kept_column_does_not_replace_a_published_file(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    kept = pa.array([{"score": NAN, "all": [1.0, NAN]}, None])
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "lang": kept, "one": [NAN, 1.0]}), tmp_path / "in" / "a.parquet")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=["lang", "one"])
    in_one_process(cfg).require_complete()
    (data,) = tmp_path.glob("out/data/*/*.parquet")
    (receipt,) = tmp_path.glob("out/_meta/receipts/*/*.json")
    before = (data.stat().st_ino, data.stat().st_mtime_ns, receipt.read_bytes())
    receipt.unlink()  # the process ended between data and receipt
    in_one_process(cfg).require_complete()
    assert (data.stat().st_ino, data.stat().st_mtime_ns) == before[:2]
    assert same(read_dataset(tmp_path / "out")["lang"].to_pylist(), kept.to_pylist())


def test_a_time_beyond_the_day_is_no_id_and_null_in_a_kept_column(tmp_path: Path) -> None:
    times = pa.Array.from_buffers(pa.time64("us"), 2, [None, pa.py_buffer(np.array([1, 86_400_000_000]))])
    pq.write_table(pa.table({"id": times, "text": ["a", "b"]}), tmp_path / "a.parquet")
    (found,) = read(tmp_path / "a.parquet", config())
    assert found.texts == ["a"]
    (reject,) = found.rejects.to_pylist()
    assert (reject["row"], reject["reason"]) == (1, "wrong_type")
    assert "id: " in reject["detail"]
    assert "86400000000" in reject["detail"]
    pq.write_table(pa.table({"id": [1, 2], "text": ["a", "b"], "kept": times}), tmp_path / "a.parquet")
    (kept,) = read(tmp_path / "a.parquet", config(keep_columns=["kept"]))
    assert kept.rows["kept"].to_pylist() == [time(0, 0, 0, 1), None]


def test_times_and_zones_come_back(tmp_path: Path) -> None:
    moments = pa.array([datetime(2026, 1, 1, 12, 30, tzinfo=UTC)], utc("us", "Europe/Berlin"))
    found = read_pair(tmp_path, moments, moments)
    assert found[1].rows.schema.field("kept").type == moments.type
    assert found[1].rows["kept"].to_pylist() == moments.to_pylist()
    (tmp_path / "b.parquet").unlink()
    pq.write_table(pa.table({"id": [time(1), time(2)], "text": ["a", "b"]}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet", config())[0].rows["id"].to_pylist() == [time(1), time(2)]


MOMENTS = [datetime(2020, 1, 1, 0, 0, 0, 123456), datetime(9999, 12, 31), None, datetime(1, 1, 1), datetime(1969, 12, 31, 23)]


@pytest.mark.parametrize("name", ["id", "kept"])
def test_int96_timestamps_of_any_year_come_back(tmp_path: Path, name: str) -> None:
    """Nanoseconds, in which Arrow reads them, hold the years 1677 to 2262 alone."""
    columns = {"id": range(5), "text": ["t"] * 5, "kept": range(5)} | {name: pa.array(MOMENTS, utc("us", None))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    pq.write_table(pa.table(columns).slice(0, 1), tmp_path / "b.parquet", use_deprecated_int96_timestamps=True)
    found = read_settled(tmp_path, config(keep_columns=["kept"]))
    assert [part.rows.schema.field(name).type for part in found] == [utc("us", None)] * 2
    assert found[0].rows[name].to_pylist() == [moment for moment in MOMENTS if name == "kept" or moment is not None]
    assert found[1].rows[name].to_pylist() == MOMENTS[:1]


@pytest.mark.parametrize("name", ["id", "kept"])
def test_int96_timestamps_that_a_declared_type_does_not_hold_are_rejected(tmp_path: Path, name: str) -> None:
    columns = {"id": range(5), "text": ["t"] * 5, "kept": range(5)} | {name: pa.array(MOMENTS, utc("us", None))}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (found,) = read(tmp_path / "a.parquet", config(keep_columns=["kept"], column_types={name: "timestamp[ns]"}))
    rejected = [1, 2, 3] if name == "id" else [1, 3]
    back = found.rows[name].cast(utc("us", None)).to_pylist()
    assert back == [moment for row, moment in enumerate(MOMENTS) if row not in rejected]
    assert [(row["row"], row["reason"]) for row in found.rejects.to_pylist()] == [
        (row, "null_id" if row == 2 else "wrong_type") for row in rejected
    ]


def test_int96_timestamps_that_no_unit_holds_are_text(tmp_path: Path) -> None:
    nanoseconds = pa.table({"id": [1], "text": ["t"], "kept": pa.array([1], pa.timestamp("ns"))})
    pq.write_table(nanoseconds, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    years = pa.table({"id": [2], "text": ["t"], "kept": pa.array([datetime(9999, 12, 31)])})
    pq.write_table(years, tmp_path / "b.parquet", use_deprecated_int96_timestamps=True)
    found = read_settled(tmp_path, config(keep_columns=["kept"]))
    texts = [value for part in found for value in part.rows["kept"].to_pylist()]
    assert texts == ["1970-01-01T00:00:00.000000001", "9999-12-31T00:00:00.000000"]


@pytest.mark.parametrize("shape", ["struct", "list", "list of structs", "map"])
def test_int96_timestamps_within_other_values_come_back_too(tmp_path: Path, shape: str) -> None:
    value: dict[str, Callable[[datetime | None], Any]] = {
        "struct": lambda moment: {"at": moment},
        "list": lambda moment: [datetime(2020, 1, 1), moment],
        "list of structs": lambda moment: [{"at": moment}],
        "map": lambda moment: [("first", datetime(2020, 1, 1)), ("at", moment)],
    }
    kind = pa.map_(pa.string(), pa.timestamp("us")) if shape == "map" else None
    column = pa.array([None, *map(value[shape], MOMENTS)], kind)
    table = pa.table({"id": range(6), "text": ["t"] * 6, "kept": column, "kept.other": pa.nulls(6)})
    pq.write_table(table, tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (found,) = read_settled(tmp_path, config(keep_columns=["kept"]))
    assert found.rows["kept"].to_pylist() == column.to_pylist()


def test_times_that_python_has_no_type_for_are_shown(tmp_path: Path) -> None:
    years = pa.array([2**58], pa.timestamp("us"))
    pq.write_table(pa.table({"id": [1], "text": ["t"], "kept": years}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    (found,) = read(tmp_path / "a.parquet", config(keep_columns=["kept"], column_types={"kept": "timestamp[ns]"}))
    assert "kept is 11103-08-29 17:22:31.711744, not timestamp[ns]" in found.rejects["detail"][0].as_py()
    nanoseconds = pa.chunked_array([pa.array([7, 8], pa.timestamp("ns"))])
    assert schema.display_value(nanoseconds, 1) == "1970-01-01 00:00:00.000000008"
    assert schema.display_value(pa.chunked_array([pa.array([7], pa.time64("ns"))]), 0) == "00:00:00.000000007"
    assert schema.display_value(pa.chunked_array([pa.array([[8]], pa.list_(pa.timestamp("ns")))]), 0) == "[ 1970-01-01 00:00:00.000000008 ]"


def test_repeated_ids_of_any_type_are_counted(tmp_path: Path) -> None:
    for column in (
        pa.array([1, 1, 2**62], pa.timestamp("ns")),
        pa.array([2**31 - 1, 2**31 - 1, 5], pa.date32()),
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, b"a" * 16, b"b" * 16], pa.binary(16))),
        pa.array(["a", "a", "b"], pa.string_view()),
        pa.array([b"a", b"a", b"b"], pa.binary_view()),
        pa.array([Decimal("1.5"), Decimal("1.50"), Decimal("2")], pa.decimal32(5, 2)),
    ):
        pq.write_table(pa.table({"id": column, "text": ["t"] * 3}), tmp_path / "a.parquet")
        (found,) = read(tmp_path / "a.parquet", config())
        assert (found.rows.num_rows, found.repeated_ids) == (3, 1)
