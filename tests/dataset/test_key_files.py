"""What a scan has found comes back from its key file, and a file that is damaged says so."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed import row_keys, schema
from bulkembed.dataset import file_keys, key_files, paths
from bulkembed.dataset.parquet_file import parquet_bytes
from bulkembed.errors import StorageError
from bulkembed.row_keys import Keys
from bulkembed.runs.lookup import open_job
from bulkembed.scans import Layout, Scan, ScanCounts
from bulkembed.source.objects import source_objects
from bulkembed.source.scan import scan_object
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl
from tests.support.runs import in_one_process, simulated

STORE = Store()
NAMES = ("ids", "contents", "kept", "rows")


def some_scan(documents: int, rejects: int = 0) -> Scan:
    hashes = row_keys.content_hashes(f"text {number}" for number in range(documents))
    keys = Keys(hashes, hashes + 1, hashes + 2, np.arange(documents) + rejects, np.zeros(documents, np.int32))
    rejected = pa.table(
        {
            "id": [None] * rejects,
            "source": ["in/a.jsonl"] * rejects,
            "row": range(rejects),
            "reason": ["null_text"] * rejects,
            "detail": [""] * rejects,
            "content_hash": [None] * rejects,
        },
        schema=schema.rejects_schema(pa.string()),
    )
    layout = Layout([documents, rejects], [10 * documents, 0], [3, 10 * documents], None)
    return Scan(layout, keys, rejected, ScanCounts(documents + rejects, documents, rejects, 10 * documents))


@pytest.mark.parametrize(("documents", "rejects"), [(5, 2), (5, 0), (0, 0), (0, 3)])
def test_a_scan_comes_back(tmp_path: Path, documents: int, rejects: int) -> None:
    scan, output = some_scan(documents, rejects), str(tmp_path)
    for object_id in ("a", "b"):
        key_files.write_scan(STORE, output, "line", object_id, scan)
    keys = key_files.read_keys(STORE, output, "line", ["b", "a"])
    for name in NAMES:
        np.testing.assert_array_equal(getattr(keys, name), np.concatenate([getattr(scan.keys, name)] * 2))
    assert keys.owners.tolist() == [0] * documents + [1] * documents
    assert key_files.read_layout(STORE, output, "line", "a") == scan.layout
    assert key_files.read_scan_counts(STORE, output, "line", ["a", "b"]) == [scan.counts] * 2
    for n_objects in (2, 10**6):  # by a listing, and by a look at each
        assert key_files.scanned(STORE, output, "line", ["c", "b"], n_objects) == {"b"}
        assert key_files.scanned(STORE, output, "other", ["c", "b"], n_objects) == set()
    rejects_uri = paths.rejects_uri(output, "line", "a")
    assert STORE.stands(rejects_uri) == (rejects > 0)
    if rejects:
        assert schema.table_of(STORE.read(rejects_uri)).equals(scan.rejects)


def test_rejects_are_written_before_the_key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    written: list[str] = []
    for name in ("put", "create"):
        monkeypatch.setattr(store, name, lambda uri, data: written.append(uri))
    key_files.write_scan(store, str(tmp_path), "line", "a", some_scan(2, 1))
    assert written == [paths.rejects_uri(str(tmp_path), "line", "a"), paths.keys_uri(str(tmp_path), "line", "a")]


def test_a_key_file_that_stands_there_stays(tmp_path: Path) -> None:
    key_files.write_scan(STORE, str(tmp_path), "line", "a", some_scan(2))
    key_files.write_scan(STORE, str(tmp_path), "line", "a", some_scan(3))
    assert len(key_files.read_keys(STORE, str(tmp_path), "line", ["a"])) == 2


def test_a_key_is_48_bytes_and_its_row_next_to_none() -> None:
    documents = 20_000
    assert len(key_files.key_file_bytes(some_scan(documents))) < documents * 50 + 4096


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flip(data: bytes) -> bytes:
    return data[:500] + bytes([data[500] ^ 1]) + data[501:]


def foreign(data: bytes) -> bytes:
    return parquet_bytes(pa.table({"row": [1]}), {})


def older(data: bytes) -> bytes:
    table = schema.table_of(data)
    return parquet_bytes(table, {"keys": "0"})


def fewer(data: bytes) -> bytes:
    table = schema.table_of(data)
    footer = {key.decode().removeprefix("bulkembed."): value.decode() for key, value in table.schema.metadata.items()}
    return parquet_bytes(table.slice(1), footer)


@pytest.mark.parametrize("damage", [cut, flip, foreign, older, fewer, lambda data: b""])
def test_a_damaged_key_file_says_so_in_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    uri = paths.keys_uri(str(tmp_path), "line", "a")
    STORE.put(uri, damage(key_files.key_file_bytes(some_scan(100))))
    with pytest.raises(StorageError, match=r"a.parquet: no key file of this version, or damaged: .*; delete it") as problem:
        key_files.read_keys(STORE, str(tmp_path), "line", ["a"])
    assert "\n" not in str(problem.value)


def test_a_key_file_that_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        key_files.read_keys(STORE, str(tmp_path), "line", ["a"])
    with pytest.raises(FileNotFoundError):
        key_files.read_layout(STORE, str(tmp_path), "line", "a")


def data_file(ids: list[int], hashes: list[str], **more: pa.Array) -> pa.Table:
    contents = row_keys.binary_of(row_keys.content_hashes(hashes))
    vectors = pa.array([[0.0, 1.0]] * len(ids), pa.list_(pa.float16(), 2))
    return pa.table({"id": ids, "lang": ["xx"] * len(ids), "embedding": vectors, "content_hash": contents, **more})


def test_a_data_file_has_the_keys_of_its_documents(tmp_path: Path) -> None:
    table = data_file([4, 5, 4], ["a", "b", "a"])
    STORE.put(str(tmp_path / "a.parquet"), parquet_bytes(table, {}))
    found = file_keys.keys_of_file(STORE, str(tmp_path / "a.parquet"), ["lang"])
    np.testing.assert_array_equal(found.keys.ids, row_keys.id_hashes(table["id"]))
    np.testing.assert_array_equal(found.keys.contents, row_keys.content_hashes(["a", "b", "a"]))
    np.testing.assert_array_equal(found.keys.kept, row_keys.kept_hashes(table, ["lang"]))
    assert (found.keys.rows.tolist(), found.lengths.tolist()) == ([0, 1, 2], [1, 1, 1])


def test_a_run_writes_the_keys_that_a_scan_of_its_source_finds(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    rows = [
        {"id": str(number), "text": f"text {number}" if number % 5 else " ", "lang": "xx", "tags": ["a"] * (number % 3)}
        for number in range(50)
    ]
    write_jsonl(tmp_path / "in/a.jsonl", rows)
    table = pa.Table.from_pylist(rows).append_column("at", pa.array(range(50), pa.timestamp("ns")))
    pq.write_table(table.set_column(2, "lang", table["lang"].dictionary_encode()), tmp_path / "in/b.parquet", row_group_size=7)
    for source, kept in (("a.jsonl", ["lang", "tags"]), ("b.parquet", ["lang", "tags", "at"])):
        cfg = simulated(tmp_path / "in" / source, tmp_path / source, qwen, keep_columns=kept)
        in_one_process(cfg).require_complete()
        job = open_job(cfg)[0]
        (item,) = source_objects(STORE, str(cfg.source_text))
        scanned = scan_object(STORE, item, job.recipe, job.carried)
        files = [file_keys.keys_of_file(STORE, str(path), kept).keys for path in sorted((tmp_path / source).glob("data/*/*"))]
        assert len(files) >= 2
        for name in ("ids", "contents", "kept"):
            np.testing.assert_array_equal(getattr(Keys.concat(files), name), getattr(scanned.keys, name))


def test_a_document_that_a_run_has_cut_has_the_key_of_its_scan(tmp_path: Path, qwen: str) -> None:
    rows = [{"id": number, "text": f"some words {number}. " * (1 + number % 3 * 20), "lang": "xx"} for number in range(12)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    cfg = simulated(tmp_path / "a.jsonl", tmp_path / "out", qwen, long_documents="chunk", chunk_tokens=16, chunk_overlap=0)
    in_one_process(cfg).require_complete()
    job = open_job(cfg)[0]
    (item,) = source_objects(STORE, str(cfg.source_text))
    scanned = scan_object(STORE, item, job.recipe, job.carried)
    (path,) = (tmp_path / "out").glob("data/*/*")
    found = file_keys.keys_of_file(STORE, str(path), ["lang"])
    for name in ("ids", "contents", "kept"):
        np.testing.assert_array_equal(getattr(found.keys, name), getattr(scanned.keys, name))
    assert found.lengths[0] < found.lengths[1] < found.lengths[2]
    assert found.lengths.sum() == pq.read_metadata(path).num_rows


def test_a_document_of_several_chunks_has_one_key() -> None:
    documents = row_keys.binary_of(row_keys.content_hashes(["a", "a", "b", "c", "c", "c"]))
    chunks = pa.array([0, 1, 0, 0, 1, 2], pa.int32())
    table = data_file([1, 1, 2, 3, 3, 3], list("uvwxyz"), chunk_index=chunks, document_hash=documents)
    found = file_keys.keys_of_table(table, [])
    np.testing.assert_array_equal(found.keys.contents, row_keys.content_hashes(["a", "b", "c"]))
    np.testing.assert_array_equal(found.keys.ids, row_keys.id_hashes(pa.chunked_array([[1, 2, 3]])))
    assert (found.keys.rows.tolist(), found.lengths.tolist()) == ([0, 2, 3], [2, 1, 3])
    assert file_keys.keys_of_table(table.slice(0, 0), []).lengths.tolist() == []
    with pytest.raises(ValueError, match="no first chunk"):
        file_keys.keys_of_table(table.slice(1), [])


@pytest.mark.parametrize("data", [b"", b"PAR1", parquet_bytes(pa.table({"id": [1]}), {})])
def test_a_damaged_data_file_says_so(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(data)
    with pytest.raises(StorageError, match=r"a.parquet: is damaged"):
        file_keys.keys_of_file(STORE, str(tmp_path / "a.parquet"), ["lang"])


@given(st.sets(st.integers(0, 30)), st.lists(st.integers(0, 30)))
def test_a_file_may_hold_what_it_holds_and_hardly_anything_else(held: set[int], wanted: list[int]) -> None:
    prefixes = file_keys.content_prefixes(row_keys.content_hashes(map(str, [*held, *held])))
    assert len(prefixes) == 4 * len(held)
    assert list(np.frombuffer(prefixes, "<u4")) == sorted(np.frombuffer(prefixes, "<u4"))
    mask = file_keys.may_hold(prefixes, row_keys.content_hashes(map(str, wanted)))
    assert mask.tolist() == [number in held for number in wanted]
