"""A data file and its edits -> a new data file, against plain Python; and files of another line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import Mock

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkembed import schema
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import parquet_file, row_groups
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.vector_columns import stored_values
from bulkembed.errors import StorageError
from bulkembed.package_files import Package
from bulkembed.records import Receipt
from bulkembed.runs.job import Job
from bulkembed.runs.rewrite import FileEdit, rewrite
from bulkembed.shards import FileName, ShardId
from bulkembed.vectors import quantize
from tests.support.models import MODEL, recipe

NAME = str(FileName(ShardId("a" * 16, 0, 100, 100)))
PLAIN = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("lang", pa.string())])
FORMS = "64:float32,64:float16,64:int8,64:binary"
FULL = np.random.default_rng(0).normal(size=(100, 64)).astype(np.float32)


def job_of(output: object, carried: pa.Schema = PLAIN, ranges: bool = True, **values: Any) -> Job:
    given = {"source": "/in", "output": str(output), "model": "m", "keep_columns": carried.names[1:]} | values
    cfg = RunConfig.model_validate(given)
    job = Job(cfg, MODEL, recipe(cfg), carried)
    measured = {name: quantize.measure_int8_ranges(FULL, form.dim) for name, form in job.int8_columns.items()}
    return replace(job, recipe=job.recipe.with_int8_ranges(quantize.int8_ranges_to_text(measured))) if measured and ranges else job


def write_old(job: Job, carried: pa.Table, chunks: list[int] | None = None, full: np.ndarray[Any, Any] | None = None) -> pa.Table:
    """A data file of these documents, as a run writes it. `chunks`: rows of each document, in chunk mode. Returns its table."""
    counts = chunks or [1] * carried.num_rows
    owners = np.repeat(np.arange(carried.num_rows), counts)
    rows, n = carried.take(pa.array(owners)), len(owners)
    if chunks is not None:
        for item in schema.CHUNKS:
            indices = [row for count in counts for row in range(count)]
            hashes = [owner.item().to_bytes(16) for owner in owners]
            rows = rows.append_column(item, pa.array(indices if pa.types.is_integer(item.type) else hashes, item.type))
    hashes = [row.to_bytes(16) for row in range(n)]
    tail = [pa.array(range(1, n + 1), pa.int32()), pa.array([row % 3 == 0 for row in range(n)]), pa.array(hashes, pa.binary(16))]
    for item, column in zip(schema.TAIL, tail, strict=True):
        rows = rows.append_column(item, column)
    full = FULL[:n] if full is None else full
    vectors = {name: quantize.encode_vectors(full, form, job.int8_ranges.get(name)) for name, form in job.columns.items()}
    table = parquet_file.data_table(rows, vectors, job.recipe.row_schema.vectors)
    job.store.put(job.ledger.data_uri(NAME), parquet_file.parquet_bytes(table, job.provenance | {"engine": "old 1"}))
    return table


def documents(n: int, prefix: str = "old") -> pa.Table:
    return pa.table([[f"{prefix}{row}" for row in range(n)], ["en"] * n], schema=PLAIN)


def edit_of(job: Job, live: list[int] | None, slots: list[int], values: pa.Table | None = None) -> FileEdit:
    values = documents(len(slots), "new") if values is None else values
    return FileEdit(job.fingerprint, NAME, None if live is None else np.array(live, np.int64), np.array(slots, np.int64), values, 7)


def read_new(job: Job, receipt: Receipt | None) -> pa.Table:
    assert receipt is not None
    return schema.table_of(job.store.read(job.ledger.data_uri(receipt.shard)))


def row_values(table: pa.Table) -> list[tuple[Any, ...]]:
    """The rows as Python values; vectors as bytes."""
    columns: list[list[Any]] = []
    for item in table.schema:
        is_vector = pa.types.is_fixed_size_list(item.type)
        columns.append([row.tobytes() for row in stored_values(table, item.name)] if is_vector else table[item.name].to_pylist())
    return list(zip(*columns, strict=True))


def model(old: list[list[tuple[Any, ...]]], live: list[int] | None, slots: list[int], ids: list[str]) -> list[tuple[Any, ...]]:
    """What the edit comes to, in plain Python. `old`: rows by document. `live`, `slots`: documents."""
    kept = [row for number, rows in enumerate(old) if live is None or number in live for row in rows]
    return kept + [(name, "en", *row[2:]) for slot, name in zip(slots, ids, strict=True) for row in old[slot]]


@settings(max_examples=40)
@given(
    counts=st.lists(st.integers(1, 4), min_size=1, max_size=20),
    chunked=st.booleans(),
    group=st.sampled_from([3, 8192]),
    choices=st.data(),
)
def test_the_new_file_is_what_plain_python_makes_of_the_old_one(
    counts: list[int], chunked: bool, group: int, choices: st.DataObject
) -> None:
    n = len(counts)
    live = choices.draw(st.none() | st.lists(st.integers(0, n - 1), unique=True).map(sorted))
    slots = choices.draw(st.lists(st.integers(0, n - 1), max_size=10))
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        job = job_of(folder, vectors=FORMS, long_documents="chunk" if chunked else "truncate")
        patched.setattr(parquet_file, "ROWS_PER_GROUP", group)
        table = write_old(job, documents(n), counts if chunked else None)
        starts = np.cumsum([0, *counts])[:-1] if chunked else np.arange(n)
        rows, ends = row_values(table), [*starts[1:], table.num_rows]
        old = [rows[start:stop] for start, stop in zip(starts, ends, strict=True)]
        edit = edit_of(job, None if live is None else [int(starts[row]) for row in live], [int(starts[row]) for row in slots])
        receipt = rewrite(edit, job)
        expected = model(old, live, slots, edit.values["id"].to_pylist())
        if not expected:
            assert receipt is None
            return
        new = read_new(job, receipt)
    assert sorted(row_values(new)) == sorted(expected)
    assert receipt is not None
    if group == 8192:  # kept rows first, then the adds by slot
        kept = model(old, live, [], [])
        by_slot = sorted(zip(slots, edit.values["id"].to_pylist(), strict=True), key=lambda pair: pair[0])
        assert row_values(new) == kept + model(old, [], [slot for slot, _ in by_slot], [name for _, name in by_slot])
    if chunked:  # the chunks of a document follow each other
        assert new["chunk_index"].to_pylist() == [at for length in lengths_of(new) for at in range(length)]
    counted = receipt.counts
    left = (n if live is None else len(live)) + len(slots)
    assert (counted.documents, counted.rows, counted.vectors, counted.rejects) == (left, left, new.num_rows, 0)
    assert counted.tokens == sum(new["n_tokens"].to_pylist()) and counted.truncated == sum(new["truncated"].to_pylist())
    assert counted.chunked == sum(length > 1 for length in lengths_of(new))


def lengths_of(table: pa.Table) -> list[int]:
    if "chunk_index" not in table.column_names:
        return [1] * table.num_rows
    starts = [row for row, index in enumerate(table["chunk_index"].to_pylist()) if index == 0]
    return [int(length) for length in np.diff([*starts, table.num_rows])]


def test_plain_readers_read_the_new_file(tmp_path: Path) -> None:
    job = job_of(tmp_path, vectors=FORMS)
    old = write_old(job, documents(20))
    receipt = rewrite(edit_of(job, [row for row in range(20) if row != 3], [3]), job)
    assert receipt is not None
    path = job.ledger.data_uri(receipt.shard)
    expected = stored_values(old, "embedding")[3]
    (found,) = duckdb.connect().sql("select embedding from read_parquet(?) where id = 'new0'", params=[path]).fetchall()
    np.testing.assert_array_equal(np.array(found[0], np.float32), expected)
    frame = pl.read_parquet(path)
    assert frame.height == 20
    np.testing.assert_array_equal(frame.filter(pl.col("id") == "new0")["embedding"].to_numpy()[0], expected)
    assert pq.read_schema(path).remove_metadata() == pq.read_schema(job.ledger.data_uri(NAME)).remove_metadata()


def test_the_receipt_and_the_footer_say_where_the_rows_come_from(tmp_path: Path) -> None:
    job = job_of(tmp_path, vectors="64:float16")
    write_old(job, documents(5))
    receipt = rewrite(edit_of(job, None, [2]), job)
    assert receipt is not None and receipt == job.ledger.read_receipt(receipt.shard)
    assert (receipt.derived_from, receipt.source) == (NAME, job.ledger.data_uri(NAME))
    assert FileName.parse(receipt.shard)[:3] == (ShardId.parse(NAME), "w", 7)
    footer = parquet_file.footer_of(read_new(job, receipt).schema)
    assert footer == job.provenance | {"engine": "old 1"}
    assert receipt.provenance == job.short_provenance | {"engine": "old 1"}


def test_equal_edits_have_equal_names_and_others_have_others(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    base = edit_of(job, [0, 2], [1, 1])
    parts = pa.concat_tables([base.values.slice(0, 1), base.values.slice(1)])
    assert replace(base, values=parts).new_name == base.new_name
    others = [
        replace(base, live=None),
        replace(base, live=np.array([0])),
        replace(base, live=np.array([0, 2, 1]), slots=np.array([1])),
        replace(base, slots=np.array([1, 2])),
        replace(base, values=base.values.set_column(1, PLAIN.field(1), pa.array(["en", "de"]))),
        replace(base, values=base.values.set_column(1, PLAIN.field(1), pa.array(["en", None], pa.string()))),
        replace(base, fingerprint="other"),
        replace(base, name=NAME.replace("a", "b", 1)),
        replace(base, parent=8),
    ]
    assert len({str(edit.new_name) for edit in [base, *others]}) == 1 + len(others)


@pytest.mark.parametrize("damage", [b"", b"PAR1 half a file"])
def test_a_second_attempt_finds_its_own_file_and_mends_a_broken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: bytes) -> None:
    job = job_of(tmp_path)
    write_old(job, documents(5))
    edit = edit_of(job, [0, 1], [4])
    uri = job.ledger.data_uri(str(edit.new_name))
    with monkeypatch.context() as patched:  # killed between the data and the receipt
        patched.setattr(Ledger, "write_receipt", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            rewrite(edit, job)
    first = job.store.read(uri)
    assert rewrite(edit, job) == job.ledger.read_receipt(str(edit.new_name))
    upgraded = replace(job, package=Package("99", ""))
    receipt = rewrite(edit, upgraded)
    assert receipt is not None and job.store.read(uri) == first
    assert receipt.provenance["bulkembed"] == job.package.version  # of the file that stands there
    job.store.put(uri, damage)
    assert rewrite(edit, job) is not None and job.store.read(uri) == first
    job.store.put(uri, job.store.read(job.ledger.data_uri(NAME)))
    with pytest.raises(StorageError, match="another file stands there"):
        rewrite(edit, job)


def test_kept_columns_of_any_type_are_carried(tmp_path: Path) -> None:
    kinds = {
        "at": (pa.timestamp("s"), [1, None, 3]),
        "tags": (pa.list_(pa.struct([("a", pa.float64()), ("b", pa.list_(pa.time32("s")))])), [[{"a": float("nan"), "b": [5]}], None, []]),
        "map": (pa.map_(pa.string(), pa.int8()), [[("x", 1)], [], None]),
        "json": (pa.json_(), ["{}", None, "1"]),
        "uuid": (pa.uuid(), [b"u" * 16, None, b"v" * 16]),
    }
    carried = pa.schema([pa.field("id", pa.uuid(), nullable=False), *(pa.field(name, kind) for name, (kind, _) in kinds.items())])
    columns = [pa.array([bytes([row]) * 16 for row in range(3)], pa.uuid()), *(pa.array(values, kind) for kind, values in kinds.values())]
    values = pa.Table.from_arrays(columns, schema=carried)
    job = job_of(tmp_path, carried)
    old = write_old(job, values)
    receipt = rewrite(edit_of(job, [0, 1], [2, 0, 0], values), job)
    assert receipt is not None and receipt.counts.repeated_ids == 2
    new = read_new(job, receipt)
    assert new.schema.remove_metadata() == schema.table_of(job.store.read(job.ledger.data_uri(NAME))).schema.remove_metadata()
    expected = old.take([0, 1, 0, 0, 2]).drop_columns(values.column_names)
    assert row_values(new.select(expected.column_names)) == row_values(expected)
    assert str(new.select(values.column_names).to_pylist()) == str(values.take([0, 1, 1, 2, 0]).to_pylist())


@pytest.mark.parametrize(
    ("live", "slots", "message"),
    [
        ([0, 5], [], "lacks some"),
        ([], [9], "lacks some"),
        ([1], [], "no document begins at row 1"),
        ([], [3], "no document begins at row 3"),
    ],
)
def test_a_file_without_the_documents_that_are_named_is_an_error(tmp_path: Path, live: list[int], slots: list[int], message: str) -> None:
    job = job_of(tmp_path, long_documents="chunk")
    write_old(job, documents(2), [2, 3])
    with pytest.raises(StorageError, match=f"{NAME}.*{message}.*run again"):
        rewrite(edit_of(job, live, slots), job)
    assert not job.ledger.done()


def test_another_schema_a_missing_file_and_a_damaged_one_are_errors(tmp_path: Path) -> None:
    job = job_of(tmp_path)
    with pytest.raises(StorageError, match="is missing"):
        rewrite(edit_of(job, None, [0]), job)
    other = pa.schema([pa.field("id", pa.string(), nullable=False), pa.field("lang", pa.int64())])
    write_old(replace(job, carried=other), pa.table([["a"], [1]], schema=other))
    with pytest.raises(StorageError, match="column lang is int64, and string in this run's files"):
        rewrite(edit_of(job, None, [0]), job)
    wider = pa.schema([*PLAIN, pa.field("more", pa.int64())])
    write_old(replace(job, carried=wider), pa.table([["a"], ["b"], [1]], schema=wider))
    with pytest.raises(StorageError, match="has the columns id, lang, more"):
        rewrite(edit_of(job, None, [0]), job)
    uri = job.ledger.data_uri(NAME)
    job.store.put(uri, job.store.read(uri)[:-20])
    with pytest.raises(StorageError, match="is unreadable"):
        rewrite(edit_of(job, None, [0]), job)


def test_a_large_file_is_read_by_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(tmp_path)
    monkeypatch.setattr(parquet_file, "ROWS_PER_GROUP", 10)
    old = write_old(job, documents(40))
    monkeypatch.setattr(row_groups, "WHOLE_BYTES", 1000)
    file = row_groups.open_data_file(job.store, job.ledger.data_uri(NAME))
    assert [group.num_rows for group in file.groups()] == [10, 10, 10, 10]
    assert row_values(read_new(job, rewrite(edit_of(job, list(range(39)), []), job))) == row_values(old)[:39]


OTHER = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("url", pa.string())])


def from_another_line(folder: Path, old_forms: str, new_forms: str, derive: bool) -> tuple[pa.Table, Job, Receipt | None, list[int]]:
    """Rows 5, 5 and 2 of a file of another line."""
    old, new = job_of(folder, vectors=old_forms), job_of(folder, OTHER, vectors=new_forms, derive=derive)
    table = write_old(old, documents(10))
    values = pa.table([[1, 2, 3], ["x", "y", "z"]], schema=OTHER)
    edit = FileEdit(old.fingerprint, NAME, np.empty(0, np.int64), np.array([5, 5, 2]), values, 7)
    return table, new, rewrite(edit, new), [2, 5, 5]


def test_equal_forms_of_another_line_keep_their_bits(tmp_path: Path) -> None:
    table, job, receipt, rows = from_another_line(tmp_path, FORMS, "64:binary,64:int8,64:float16", derive=False)
    new = read_new(job, receipt)
    sources = {"embedding": "embedding_64_binary", "embedding_64": "embedding_64_int8", "embedding_64_float16": "embedding_64"}
    for name, source in sources.items():
        np.testing.assert_array_equal(stored_values(new, name), stored_values(table, source)[rows])
    assert new["id"].to_pylist() == [3, 1, 2] and new["url"].to_pylist() == ["z", "x", "y"]
    assert new["content_hash"].equals(table["content_hash"].take(rows))
    assert receipt is not None and receipt.counts.int8_components == 0


@pytest.mark.parametrize("stored", ["float32", "float16"])
def test_fewer_dims_are_cut_from_a_stored_float_form(tmp_path: Path, stored: str) -> None:
    forms = "32:float16,48:int8,32:binary" + (",32:float32" if stored == "float32" else "")
    table, job, receipt, rows = from_another_line(tmp_path, f"64:{stored}", forms, derive=True)
    new, full = read_new(job, receipt), stored_values(table, "embedding")[rows].astype(np.float32)
    for name, form in job.columns.items():
        np.testing.assert_array_equal(stored_values(new, name), quantize.encode_vectors(full, form, job.int8_ranges.get(name)))
    embedded = quantize.encode_vectors(FULL[rows], job.columns["embedding"], None).astype(np.float32)
    np.testing.assert_allclose(stored_values(new, "embedding").astype(np.float32), embedded, atol=1e-3)
    assert receipt is not None and receipt.counts.int8_components == 3 * 48


@pytest.mark.parametrize(
    ("old_forms", "new_forms", "derive"),
    [
        ("64:float32", "32:float32", False),
        ("64:int8", "32:int8", True),
        ("32:float32", "64:float32", True),
        ("64:float16", "32:float32", True),
        ("64:binary", "64:float32", True),
    ],
)
def test_what_only_the_model_can_give_is_refused(tmp_path: Path, old_forms: str, new_forms: str, derive: bool) -> None:
    with pytest.raises(StorageError, match="does not give the vectors of this run without the model"):
        from_another_line(tmp_path, old_forms, new_forms, derive)
    assert not job_of(tmp_path, vectors=new_forms).recipe.derivable_from(job_of(tmp_path, vectors=old_forms).recipe, derive)
