"""What Arrow can hold, and Parquet, Python or other readers cannot: invalid values, far times, encodings. None of it costs a document."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed.errors import ConfigError, SourceError
from bulkembed.records import Documents
from bulkembed.source import reader
from bulkembed.source.conversion import WrongType
from bulkembed.source.objects import source_objects
from tests.support.models import recipe
from tests.support.reading import STORE, carried_of, config, read_settled, shards_of
from tests.support.runs import in_one_process, problems, read_dataset, simulated

Wrap = Callable[[pa.Array], pa.Array]
UUIDS = pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"a" * 16, b"b" * 16], pa.binary(16)))


def stored(numbers: list[int | None], kind: pa.DataType) -> pa.Array:
    """Numbers as Arrow stores them under this type, whether they are values of it or not."""
    return pa.array(numbers, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


def not_utf8() -> pa.Array:
    raw = pa.array([b"ok", b"caf\xe9"], pa.binary())
    return pa.StringArray.from_buffers(2, raw.buffers()[1], raw.buffers()[2])


def in_struct(array: pa.Array) -> pa.Array:
    return pa.StructArray.from_arrays([array], ["a"])


def in_list(array: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, 1, 2], pa.int32()), array)


def in_map(array: pa.Array) -> pa.Array:
    return pa.MapArray.from_arrays(pa.array([0, 1, 2], pa.int32()), pa.array(["k", "k"]), array)


def as_dictionary(array: pa.Array) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0, 1], pa.int8()), array, safe=False)


def write(folder: Path, name: str, **columns: Any) -> None:
    """A file of these columns: Parquet, an Arrow file or an Arrow stream, by its name."""
    folder.mkdir(exist_ok=True)
    table = pa.table(columns)
    if name.endswith(".parquet"):
        pq.write_table(table, folder / name)
        return
    with (pa.ipc.new_stream if name.endswith("s") else pa.ipc.new_file)(folder / name, table.schema) as writer:
        writer.write(table)


def kept(folder: Path, *columns: pa.Array, suffix: str = "arrow", **changes: Any) -> list[Documents]:
    """A file for each of these kept columns, as a first run reads them."""
    for number, column in enumerate(columns):
        write(folder, f"{number}.{suffix}", id=range(len(column)), text=["t"] * len(column), kept=column)
    return read_settled(folder, config(keep_columns=["kept"], **changes))


def values(parts: list[Documents]) -> list[Any]:
    assert not any(part.rejects.num_rows for part in parts)
    return [value for part in parts for value in part.rows["kept"].to_pylist()]


@pytest.mark.parametrize(
    ("wrap", "texts"),
    [
        (in_struct, ['{"a":"ok"}', '{"a":"caf\ufffd"}']),
        (in_list, ['["ok"]', '["caf\ufffd"]']),
        (in_map, ['{"k":"ok"}', '{"k":"caf\ufffd"}']),
        (as_dictionary, ["ok", "caf\ufffd"]),
    ],
)
@pytest.mark.parametrize("suffix", ["parquet", "arrow", "arrows"])
def test_bytes_that_are_no_text_have_a_json_text(tmp_path: Path, wrap: Wrap, texts: list[str], suffix: str) -> None:
    assert values(kept(tmp_path, wrap(not_utf8()), pa.array([7]), suffix=suffix)) == [*texts, "7"]


def test_bytes_that_are_no_text_stay_beside_bytes(tmp_path: Path) -> None:
    assert values(kept(tmp_path, not_utf8(), pa.array([b"\xff"]))) == [b"ok", b"caf\xe9", b"\xff"]


@pytest.mark.parametrize("wrap", [lambda array: array, in_struct, in_list])
def test_a_dictionary_of_parquet_that_is_no_text_costs_no_document(tmp_path: Path, wrap: Wrap) -> None:
    (part,) = kept(tmp_path, wrap(as_dictionary(not_utf8())), suffix="parquet")
    assert "caf\ufffd" in str(values([part])[1])
    for column in ("id", "text"):
        columns = {"id": pa.array(["a", "b"]), "text": pa.array(["a", "b"])} | {column: as_dictionary(not_utf8())}
        write(tmp_path / column, "a.parquet", **columns)
        (found,) = read_settled(tmp_path / column, config())
        assert found.rejects["reason"].to_pylist() == ["undecodable"]


def test_lists_of_dictionaries_are_read_from_several_row_groups(tmp_path: Path) -> None:
    texts = pa.array([["a", None], None, ["b"], [], ["a"]], pa.list_(pa.dictionary(pa.int32(), pa.string())))
    pq.write_table(pa.table({"id": range(5), "text": ["t"] * 5, "kept": texts}), tmp_path / "a.parquet", row_group_size=2)
    assert values(read_settled(tmp_path, config(keep_columns=["kept"]))) == texts.to_pylist()


@pytest.mark.parametrize(
    ("column", "back"),
    [
        (stored([1, 86_401], pa.time32("s")), "00:00:01"),
        (stored([1, 86_400_000_000], pa.time64("us")), "00:00:00.000001"),
        (stored([86_400_000, 1], pa.date64()), "1970-01-02"),
        (pa.Array.from_buffers(pa.decimal128(3, 0), 2, [None, pa.array([5, 0, 12345, 0]).buffers()[1]]), "5"),
    ],
    ids=lambda column: str(getattr(column, "type", "")),
)
def test_what_is_no_value_of_its_type_is_null(tmp_path: Path, column: pa.Array, back: str) -> None:
    assert [None if value is None else str(value) for value in values(kept(tmp_path / "alone", column))] == [back, None]
    assert values(kept(tmp_path / "text", column, pa.array(["x"]))) == [back, None, "x"]
    write(tmp_path / "ids", "a.arrow", id=column, text=["a", "b"])
    (found,) = read_settled(tmp_path / "ids", config())
    assert found.texts == ["a"]
    assert found.rejects["row"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("column", "back"),
    [
        (stored([2**60], pa.timestamp("s")), ["36534630048-05-13T13:56:16"]),
        (in_list(stored([1, 2**60], pa.timestamp("s", "UTC"))), ['["1970-01-01T00:00:01Z"]', '["36534630048-05-13T13:56:16Z"]']),
        (stored([86_400_000 * 2**33], pa.date64()), ["23520412-02-10"]),
    ],
)
def test_times_that_parquet_does_not_hold_are_text(tmp_path: Path, column: pa.Array, back: list[str]) -> None:
    assert values(kept(tmp_path, column)) == back


def test_infinite_dates_and_moments_have_a_text(tmp_path: Path) -> None:
    """DuckDB and Postgres have the greatest number for infinity."""
    days, moments = stored([2**31 - 1], pa.date32()), stored([2**63 - 1], pa.timestamp("ms", "Europe/Berlin"))
    assert values(kept(tmp_path, days, moments)) == ["5881580-07-11", "292278994-08-17T07:12:55.807Z"]


@pytest.mark.parametrize("suffix", ["arrow", "arrows"])
def test_runs_are_decoded(tmp_path: Path, suffix: str) -> None:
    runs = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", None]))
    assert values(kept(tmp_path / "kept", runs, pa.array(["b"]), suffix=suffix)) == ["a", "a", None, "b"]
    texts = pa.RunEndEncodedArray.from_arrays(pa.array([2, 3], pa.int32()), pa.array(["a", "b"]))
    write(tmp_path / "all", f"a.{suffix}", id=texts, text=texts)
    (found,) = read_settled(tmp_path / "all", config())
    assert found.texts == found.rows["id"].to_pylist() == ["a", "a", "b"]


def test_a_union_is_refused_before_any_work(tmp_path: Path) -> None:
    column = pa.UnionArray.from_sparse(pa.array([0, 1], pa.int8()), [pa.array([1, 2]), pa.array(["a", "b"])])
    with pytest.raises(ConfigError, match=r"keep_columns: 'kept' has type sparse_union.*cannot write"):
        kept(tmp_path, column)
    with pytest.raises(ConfigError, match=r"no type holds both, and sparse_union.* has no JSON"):
        kept(tmp_path, column, pa.array([1]))


def test_lists_of_nested_uuids_may_all_be_null(tmp_path: Path, qwen: str) -> None:
    lists = in_list(in_struct(UUIDS))
    for number, column in enumerate((lists, pa.nulls(2, lists.type), pa.nulls(2))):
        write(tmp_path / "in", f"{number}.arrow", id=[2 * number, 2 * number + 1], text=[f"t{number}", f"u{number}"], lang=column)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert read_dataset(tmp_path / "out")["lang"].to_pylist() == [*lists.to_pylist(), None, None, None, None]
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize("column", [pa.array([{}, None], pa.struct([])), pa.array([[{}], None], pa.list_(pa.struct([])))])
def test_what_parquet_cannot_hold_is_named_as_json_text(tmp_path: Path, qwen: str, column: pa.Array) -> None:
    write(tmp_path / "in", "a.arrow", id=[1, 2], text=["a", "b"], lang=column)
    snapshot = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).snapshot
    assert snapshot
    assert snapshot.json_text == ["lang"]


def test_a_type_that_no_object_showed_before_is_not_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of formats without a footer only some objects are looked at before they are read."""
    monkeypatch.setattr("bulkembed.source.columns.MAX_SAMPLED", 1)
    assert values(kept(tmp_path, pa.nulls(1), pa.array([7]))) == [None, 7]


def test_a_column_of_objects_that_were_not_looked_at_can_be_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkembed.source.columns.MAX_SAMPLED", 1)
    write(tmp_path, "0.arrow", id=[1], text=["t"])
    with pytest.raises(SourceError, match=r"0.arrow: no column 'kept'; its columns are id, text$"):
        read_settled(tmp_path, config(keep_columns=["kept"]))
    write(tmp_path, "1.arrow", id=[2], text=["t"], kept=[7])
    with pytest.raises(SourceError, match=r'1 more objects were not looked at: if they have it, set column_types.kept = "string"'):
        read_settled(tmp_path, config(keep_columns=["kept"]))
    assert values(read_settled(tmp_path, config(keep_columns=["kept"], column_types={"kept": "int64"}))) == [None, 7]


def labelled(column: pa.Array, name: str) -> pa.Table:
    """A kept column of an extension type that Arrow does not know here."""
    label = {"ARROW:extension:name": name, "ARROW:extension:metadata": '{"crs":"EPSG:4326"}', "unit": "m"}
    fields = [pa.field("id", pa.int64()), pa.field("text", pa.string()), pa.field("lang", column.type, metadata=label)]
    return pa.Table.from_arrays([pa.array([len(name)]), pa.array([name]), column], schema=pa.schema(fields))


def test_an_extension_type_that_arrow_does_not_know_keeps_its_name(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    for names, kept_name in ((["geoarrow.wkb", "geoarrow.wkb"], b"geoarrow.wkb"), (["geoarrow.wkb", "geo"], None)):
        for number, name in enumerate(names):
            pq.write_table(labelled(pa.array([b"point"]), name), tmp_path / "in" / f"{number}.parquet")
        output = tmp_path / names[1]
        in_one_process(simulated(tmp_path / "in", output, qwen)).require_complete()
        field = read_dataset(output).schema.field("lang")
        assert (field.metadata or {}).get(b"ARROW:extension:name") == kept_name
        assert (field.metadata or {}).keys() == ({b"ARROW:extension:name", b"ARROW:extension:metadata"} if kept_name else set())
        assert problems(output) == []


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([[0.5]], pa.list_(pa.float32())), pa.array([[0.5], [1.0, 2.0, 0.1]])),
        (pa.array([[5]]), pa.array([[5.0], [1.0, 2.0, 0.5]])),
        (pa.array([5]), pa.array([1.0, 0.5])),
        (pa.array([[("a", 5)]], pa.map_(pa.string(), pa.int8())), pa.array([[], [("a", 1), ("b", 300)]], pa.map_(pa.string(), pa.int16()))),
    ],
    ids=lambda column: str(column.type),
)
def test_the_row_of_a_value_that_does_not_fit_is_named(tmp_path: Path, first: pa.Array, second: pa.Array) -> None:
    kept(tmp_path, first, suffix="parquet")
    cfg = config(keep_columns=["kept"])
    carried = carried_of(source_objects(STORE, str(tmp_path)), cfg)
    write(tmp_path / "later", "a.parquet", id=range(2), text=["t"] * 2, kept=second)
    (shard,) = shards_of(tmp_path / "later")
    with pytest.raises(WrongType, match=r": row 1: kept"):
        reader.read_documents(STORE, shard, recipe(cfg), carried)


def test_a_decimal_takes_the_integers_that_it_holds(tmp_path: Path) -> None:
    small, large = [pa.array([7, None]), pa.array([999], pa.uint64())], [pa.array([2**62])]
    for kind, columns in (("decimal128(5, 2)", small), ("decimal256(50, 4)", large)):
        parts = kept(tmp_path / kind, *columns, suffix="parquet", column_types={"kept": kind})
        assert values(parts) == [value for column in columns for value in column.to_pylist()]
        assert {str(part.rows.schema.field("kept").type) for part in parts} == {kind}
    with pytest.raises(WrongType, match="row 1: kept: Decimal value does not fit in precision 5"):
        kept(tmp_path / "wide", pa.array([7, 1000]), column_types={"kept": "decimal128(5, 2)"})


def test_maps_that_are_all_empty_have_any_type(tmp_path: Path) -> None:
    """As DuckDB writes `map()`."""
    for name, column in (("a", "map()"), ("b", "map([i], ['x'])")):
        duckdb.sql(f"copy (select i as id, 't' as text, {column} as kept from range(2) t(i)) to '{tmp_path}/{name}.parquet'")
    assert values(read_settled(tmp_path, config(keep_columns=["kept"]))) == [[], [], [(0, "x")], [(1, "x")]]
    (tmp_path / "b.parquet").unlink()
    assert values(read_settled(tmp_path, config(keep_columns=["kept"]))) == [[], []]


def test_numbers_of_numpy_halves_are_exact(tmp_path: Path) -> None:
    halves = pa.array(np.array([0.1, np.nan], np.float16))
    assert values(kept(tmp_path, halves, pa.array(["x"]))) == ["0.0999755859375", "NaN", "x"]
