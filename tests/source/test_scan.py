"""A scan finds the documents and rejects that the shards of the object have, and keys that do not depend on how it is stored."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkembed import row_keys, stopping
from bulkembed.config.run_config import RunConfig
from bulkembed.errors import InterruptedRun, ObjectError
from bulkembed.formats import parquet
from bulkembed.formats import rows as rows_module
from bulkembed.records import Documents
from bulkembed.scans import Scan
from bulkembed.source import documents as source_documents
from bulkembed.source import scan
from bulkembed.source.columns import carried_columns
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_objects
from bulkembed.source.scan import scan_object
from bulkembed.storage import retry
from bulkembed.storage.store import Store
from tests.support.corpora import documents, write_jsonl
from tests.support.faulty_s3 import FaultyS3
from tests.support.models import recipe
from tests.support.reading import STORE, carried_of, config, read

VALUES = st.one_of(st.none(), st.text(max_size=3), st.integers(0, 9), st.booleans(), st.just("  "))


def scan_of(path: Path, cfg: RunConfig) -> Scan:
    (item,) = source_objects(STORE, str(path))
    return scan_object(STORE, item, recipe(cfg), carried_of([item], cfg))


def assert_same_rows(found: Scan, parts: list[Documents], kept: list[str]) -> None:
    """The scan has the documents and rejects of these shards of the object."""
    rows = pa.concat_tables([part.rows for part in parts])
    np.testing.assert_array_equal(found.keys.contents, row_keys.content_hashes(text for part in parts for text in part.texts))
    np.testing.assert_array_equal(found.keys.ids, row_keys.id_hashes(rows["id"]))
    np.testing.assert_array_equal(found.keys.kept, row_keys.kept_hashes(rows, kept))
    rejects = pa.concat_tables([part.rejects for part in parts])
    assert found.rejects.equals(rejects)
    assert [*found.keys.rows.tolist(), *found.rejects["row"].to_pylist()] and sorted(
        [*found.keys.rows.tolist(), *found.rejects["row"].to_pylist()]
    ) == list(range(found.counts.rows))
    assert found.counts.documents == len(found.keys) == rows.num_rows
    assert found.counts.text_bytes == sum(len(text.encode()) for part in parts for text in part.texts)


@settings(max_examples=25)
@given(st.lists(st.fixed_dictionaries({"id": VALUES, "text": VALUES, "lang": VALUES}), min_size=1, max_size=12), st.integers(1, 5))
def test_lines_are_scanned_as_their_shards_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], batch: int
) -> None:
    path = tmp_path_factory.mktemp("scan") / "a.jsonl"
    write_jsonl(path, [{"id": "first", "text": "a", "lang": "x"}, *rows, [], "no object"])
    cfg = config(keep_columns=["lang"], column_types={"lang": "string"})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows_module, "BATCH_ROWS", batch)
        found = scan_of(path, cfg)
    assert_same_rows(found, read(path, cfg), ["lang"])
    (item,) = source_objects(STORE, str(path))
    assert found.layout == layout_of(STORE, item)


@settings(max_examples=25)
@given(
    st.lists(st.tuples(st.one_of(st.none(), st.integers(0, 9)), st.one_of(st.none(), st.binary(max_size=2))), min_size=1, max_size=12),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_parquet_is_scanned_as_its_shards_are_read(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int | None, bytes | None]], batch: int, group: int
) -> None:
    path = tmp_path_factory.mktemp("scan") / "a.parquet"
    ids, texts = zip(*rows, strict=True)
    table = pa.table({"id": pa.array(ids, pa.int64()), "text": pa.array(texts, pa.binary()), "url": pa.array(texts, pa.binary())})
    pq.write_table(table, path, row_group_size=group)
    cfg = config(keep_columns=["url"])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows_module, "BATCH_ROWS", batch)
        found = scan_of(path, cfg)
    assert_same_rows(found, read(path, cfg, 7), ["url"])
    assert found.layout.part_rows == [len(part) for part in np.split(np.arange(len(rows)), range(group, len(rows), group))]


def test_keys_do_not_depend_on_the_format(tmp_path: Path) -> None:
    rows = documents(60)
    write_jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=7)
    cfg = config(keep_columns=["lang"])
    one, other = scan_of(tmp_path / "a.jsonl", cfg), scan_of(tmp_path / "a.parquet", cfg)
    for name in ("ids", "contents", "kept", "rows"):
        np.testing.assert_array_equal(getattr(one.keys, name), getattr(other.keys, name))


@pytest.mark.parametrize(("limits", "most"), [({"BATCH_ROWS": 4}, 4), ({"BATCH_BYTES": 2000}, 15), ({"BATCH_BYTES": 1}, 1)])
@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
def test_a_batch_is_bounded_in_rows_and_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, limits: dict[str, int], most: int
) -> None:
    rows = [{"id": number, "text": f"{number}" * 100} for number in range(100)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=30, use_dictionary=False)
    sizes: list[int] = []
    split_rows = source_documents.split_rows

    def noting_split(columns: Any, *arguments: Any) -> Documents:
        sizes.append(columns.rows.num_rows)
        return split_rows(columns, *arguments)

    monkeypatch.setattr(scan, "split_rows", noting_split)
    for bound, value in limits.items():
        monkeypatch.setattr(rows_module, bound, value)
    assert scan_of(tmp_path / name, config()).counts.rows == sum(sizes) == 100
    assert max(sizes) <= most


def test_small_row_groups_are_read_together(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": range(100), "text": ["x"] * 100}), tmp_path / "a.parquet", row_group_size=3)
    metadata = pq.read_metadata(tmp_path / "a.parquet")
    assert [(len(groups), rows) for groups, rows in parquet.group_runs(metadata, ["id", "text"])] == [(34, rows_module.BATCH_ROWS)]


NUMBERS = st.one_of(st.none(), st.integers(-(2**70), 2**70), st.floats(allow_nan=False), st.text(max_size=2), st.lists(st.integers(0, 3)))


@settings(max_examples=25)
@given(st.lists(NUMBERS, min_size=1, max_size=8), st.sampled_from(["int64", "double", "string", "float"]), st.integers(1, 3))
def test_a_value_fits_or_not_whatever_batch_it_is_in(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], kind: str, batch: int
) -> None:
    path = tmp_path_factory.mktemp("scan") / "a.jsonl"
    write_jsonl(path, [{"id": number, "text": "a", "value": value} for number, value in enumerate(values)])
    cfg = config(keep_columns=["value"], column_types={"value": kind})
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(rows_module, "BATCH_ROWS", batch)
        found = scan_of(path, cfg)
    assert_same_rows(found, read(path, cfg), ["value"])


def test_an_object_of_a_store_is_read_once_and_again_after_a_fault(
    tmp_path: Path, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    rows = documents(300)
    write_jsonl(tmp_path / "a.jsonl", rows)
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "b.parquet", row_group_size=50)
    root, cfg = f"s3://corpus/{tmp_path.name}", config(keep_columns=["lang"])
    for path in sorted(tmp_path.iterdir()):
        Store(s3).put(f"{root}/{path.name}", path.read_bytes())
    with FaultyS3(s3["endpoint_url"], seed=7, rate=0, faults=["reset", "503", "truncate"]) as proxy:
        store = Store(s3 | {"endpoint_url": proxy.url})
        items = source_objects(store, root)
        carried = carried_columns(store, items, recipe(cfg), root)
        proxy.methods.clear()
        undisturbed = [scan_object(store, item, recipe(cfg), carried) for item in items]
        assert proxy.methods == {"HEAD": 4, "GET": 3}  # a footer, all row groups, all lines
        proxy.rate = 0.15
        disturbed = [scan_object(store, item, recipe(cfg), carried) for item in items * 3]
        assert sum(proxy.counts.values()) > 0
    for one, other in zip(undisturbed * 3, disturbed, strict=True):
        np.testing.assert_array_equal(one.keys.contents, other.keys.contents)
        assert (one.counts, one.layout) == (other.counts, other.layout)


def test_timestamps_of_spark_are_scanned_as_they_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at = pa.array([0, None, 2**55, 7, -(2**55)], pa.timestamp("us"))  # nanoseconds do not hold the third and the last
    table = pa.table({"id": range(5), "text": list("abcde"), "at": at})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=3, use_deprecated_int96_timestamps=True)
    monkeypatch.setattr(rows_module, "BATCH_ROWS", 2)
    cfg = config(keep_columns=["at"], column_types={"at": "timestamp[ns]"})
    found = scan_of(tmp_path / "a.parquet", cfg)
    assert found.rejects["row"].to_pylist() == [2, 4]
    assert_same_rows(found, read(tmp_path / "a.parquet", cfg), ["at"])


def test_an_object_without_rows_has_no_keys(tmp_path: Path) -> None:
    pq.write_table(pa.table({"other": pa.array([], pa.int8())}), tmp_path / "a.parquet")
    (tmp_path / "a.jsonl").write_text("\n \n")
    carried = pa.schema([pa.field("id", pa.string(), nullable=False)])
    for item in source_objects(STORE, str(tmp_path)):
        found = scan_object(STORE, item, recipe(config()), carried)
        assert (len(found.keys), found.rejects.num_rows, found.counts.rows, found.layout.rows) == (0, 0, 0, 0)


@pytest.mark.parametrize(
    ("table", "problem"),
    [
        (pa.table({"id": [1]}), "no column 'text'"),
        (pa.table({"id": [1], "text": [2]}), "text column 'text' has type int64"),
        (pa.table({"id": ["a"], "text": ["b"]}), "column 'id' has type string, but int64 in this run"),
    ],
)
def test_an_object_that_does_not_fit_is_refused_in_one_line(tmp_path: Path, table: pa.Table, problem: str) -> None:
    pq.write_table(table, tmp_path / "a.parquet")
    (item,) = source_objects(STORE, str(tmp_path))
    with pytest.raises(ObjectError, match=problem):
        scan_object(STORE, item, recipe(config()), pa.schema([pa.field("id", pa.int64(), nullable=False)]))


@pytest.mark.parametrize("name", ["a.parquet", "a.jsonl.gz"])
def test_a_damaged_object_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PAR1 no file")
    (item,) = source_objects(STORE, str(tmp_path))
    with pytest.raises(ObjectError, match="not a readable"):
        scan_object(STORE, item, recipe(config()), pa.schema([pa.field("id", pa.int64(), nullable=False)]))


def test_an_object_that_has_changed_is_refused(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "a.jsonl", documents(3))
    (item,) = source_objects(STORE, str(tmp_path))
    with pytest.raises(ObjectError, match="changed since"):
        scan_object(STORE, replace(item, version="older"), recipe(config()), carried_of([item], config()))


def test_a_scan_stops_between_batches(tmp_path: Path, stop: stopping.Stop) -> None:
    write_jsonl(tmp_path / "a.jsonl", documents(3))
    stop.request(15)
    with pytest.raises(InterruptedRun):
        scan_of(tmp_path / "a.jsonl", config())
