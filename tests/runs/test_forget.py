"""Erasure of ids: their rows leave the head at once, and storage by gc."""

from __future__ import annotations

import io
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import bulkembed
from bulkembed import row_keys
from bulkembed.dataset.arrow_dataset import open_dataset
from bulkembed.dataset.erasures import add_erasure, are_in, forgotten, newest_erasure
from bulkembed.dataset.gc import GcRules, gc
from bulkembed.dataset.snapshots import current_snapshot, snapshots
from bulkembed.dataset.tags import create_tag
from bulkembed.dataset.tombstones import tombstones
from bulkembed.errors import ConfigError, SourceError
from bulkembed.runs.forget import IdFile, forget, remember
from bulkembed.runs.id_files import parse_ids
from bulkembed.storage.store import Store
from tests.support.runs import in_one_process, problems, read_dataset, simulated

STORE = Store()


def write_rows(source: Path, name: str, ids: list[Any], text: str = "text of") -> None:
    source.mkdir(exist_ok=True)
    rows = [orjson.dumps({"id": each, "text": f"{text} {each}", "lang": "en"}) for each in ids]
    (source / f"{name}.jsonl").write_bytes(b"\n".join(rows) + b"\n")


def id_file(*ids: object) -> IdFile:
    return IdFile("ids.txt", "\n".join(map(str, ids)).encode(), "id")


@pytest.fixture
def output(tmp_path: Path, qwen: str) -> str:
    """Two snapshots: rows a0..a29 in two files, then b0..b4 beside them."""
    write_rows(tmp_path / "in", "a", [f"a{number}" for number in range(30)])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    write_rows(tmp_path / "in", "b", [f"b{number}" for number in range(5)])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    return str(tmp_path / "out")


def test_rows_of_erased_ids_leave_the_head_and_their_snapshots_expire(output: str) -> None:
    before = read_dataset(output)
    done = forget(STORE, output, id_file("a3", "a7", "b2", "nobody", "a3"))
    assert (done.ids, done.found, done.not_found, done.documents) == (4, 3, 1, 3)
    assert (done.published, done.expired) == ([3], [1, 2])
    kept = [row for row in before.to_pylist() if row["id"] not in ("a3", "a7", "b2")]
    assert sorted(read_dataset(output).to_pylist(), key=lambda row: row["id"]) == sorted(kept, key=lambda row: row["id"])
    current = current_snapshot(STORE, output)
    assert current is not None and (current.number, current.documents, current.forgotten, current.erasure) == (3, 32, 3, 1)
    assert problems(output) == []
    assert set(tombstones(STORE, output)) == {1, 2}


def test_gc_takes_erased_rows_from_storage(output: str) -> None:
    forget(STORE, output, id_file("a3"))
    gc(STORE, output, GcRules(keep=3, grace=0.0, older_than=0.0, max_share=1.0))
    files = [pq.ParquetFile(path).read() for path in Path(output, "data").rglob("*.parquet")]
    ids = [each for table in files for each in table["id"].to_pylist()]
    assert sorted(ids) == sorted({*(f"a{number}" for number in range(30)), *(f"b{number}" for number in range(5))} - {"a3"})
    assert problems(output) == []


def test_a_feed_leads_away_from_an_expired_snapshot_until_gc_frees_it(tmp_path: Path, output: str) -> None:
    forget(STORE, output, id_file("a3", "b2"))
    bulkembed.changes(output, tmp_path / "feed", 2)
    deletes = [each for path in (tmp_path / "feed/deletes").iterdir() for each in pq.ParquetFile(path).read()["id"].to_pylist()]
    assert sorted(deletes) == ["a3", "b2"] and not list((tmp_path / "feed").glob("upserts/*.parquet"))
    gc(STORE, output, GcRules(keep=3, grace=0.0, older_than=0.0, max_share=1.0))
    with pytest.raises(SourceError, match="snapshot 2 has expired"):
        bulkembed.changes(output, tmp_path / "late", 2)


def test_files_without_erased_rows_stay_and_empty_ones_go(output: str) -> None:
    before = {path.name for path in Path(output, "data").rglob("*.parquet")}
    forget(STORE, output, id_file(*(f"b{number}" for number in range(5))))
    assert {path.name for path in Path(output, "data").rglob("*.parquet")} == before
    assert sorted(read_dataset(output)["id"].to_pylist()) == sorted(f"a{number}" for number in range(30))
    assert problems(output) == []


def test_the_same_command_again_changes_nothing(output: str) -> None:
    forget(STORE, output, id_file("a3"))
    again = forget(STORE, output, id_file("a3"))
    assert (again.found, again.documents, again.published, again.expired) == (0, 0, [], [])
    assert newest_erasure(STORE, output) == 1 and len(snapshots(STORE, output)) == 1


def test_every_line_loses_the_rows(tmp_path: Path, qwen: str, output: str) -> None:
    in_one_process(simulated(tmp_path / "in", output, qwen, dims=[32]))
    in_one_process(simulated(tmp_path / "in", output, qwen, limit=10))
    done = forget(STORE, output, id_file("a3"))
    assert done.documents == 3 and len(done.published) == 3 and done.expired == [1, 2, 3, 4]
    assert all("a3" not in rows_of(output, number) for number in done.published)
    current = current_snapshot(STORE, output)
    assert current is not None and current.number == done.published[0]


def rows_of(output: str, number: int) -> list[str]:
    return list(open_dataset(STORE, output, number).to_table(columns=["id"])["id"].to_pylist())


def test_a_tagged_snapshot_expires_too_and_is_named(output: str) -> None:
    create_tag(STORE, output, "golden", 1)
    done = forget(STORE, output, id_file("a3"))
    assert done.expired == [1, 2] and done.tagged == {"golden": 1}


def test_killed_anywhere_the_same_command_goes_on(tmp_path: Path, output: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Ended(BaseException):
        pass

    left = [0]
    put = Store.create

    def dying(self: Store, uri: str, data: bytes) -> bool:
        left[0] -= 1
        if left[0] < 0:
            raise Ended
        return put(self, uri, data)

    for writes in range(20):
        left[0] = writes
        with monkeypatch.context() as patched:
            patched.setattr(Store, "create", dying)
            try:
                forget(STORE, output, id_file("a3", "b1"))
            except Ended:
                assert problems(output) == []
                continue
            break
    assert 4 <= writes < 19
    current = current_snapshot(STORE, output)
    assert current is not None and current.forgotten == 2 and current.documents == 33
    assert problems(output) == [] and set(tombstones(STORE, output)) == {1, 2}


def test_any_later_call_erases_what_a_killed_one_has_listed(output: str) -> None:
    add_erasure(STORE, output, "forget", row_keys.id_hashes(pa.chunked_array([["a3", "b1"]])))  # killed after its first write
    done = forget(STORE, output, id_file("a9"))
    assert (done.ids, done.found, done.documents, done.expired) == (1, 1, 3, [1, 2])
    assert not {"a3", "b1", "a9"} & set(read_dataset(output)["id"].to_pylist())
    assert problems(output) == []


def test_ids_that_were_taken_back_return_where_others_are_erased_meanwhile(tmp_path: Path, qwen: str, output: str) -> None:
    forget(STORE, output, id_file("a3", "a4"))
    remember(STORE, output, id_file("a3"))
    forget(STORE, output, id_file("a9"))
    in_one_process(simulated(tmp_path / "in", output, qwen)).require_complete()
    held = set(read_dataset(output)["id"].to_pylist())
    assert "a3" in held and not {"a4", "a9"} & held
    current = current_snapshot(STORE, output)
    assert current is not None and (current.documents, current.forgotten, current.erasure) == (33, 2, 3)


def test_chunks_of_a_document_leave_together(tmp_path: Path, qwen: str) -> None:
    write_rows(tmp_path / "in", "a", ["x", "y", "z"], "many words " * 60)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, long_documents="chunk")
    in_one_process(cfg)
    before = read_dataset(tmp_path / "out")
    forget(STORE, str(tmp_path / "out"), id_file("y"))
    after = read_dataset(tmp_path / "out")
    assert after.num_rows < before.num_rows and set(after["id"].to_pylist()) == {"x", "z"}
    assert problems(tmp_path / "out") == []


def test_ids_are_parsed_in_the_type_of_the_dataset(tmp_path: Path, qwen: str) -> None:
    write_rows(tmp_path / "in", "a", [1, 2, 30])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    output = str(tmp_path / "out")
    with pytest.raises(ConfigError, match=r"ids.txt: line 2: '3.0' is no int64"):
        forget(STORE, output, id_file(2, "3.0"))
    assert newest_erasure(STORE, output) == 0
    sink = io.BytesIO()
    pq.write_table(pa.table({"doc": pa.array([2, 7], pa.int16())}), sink)
    done = forget(STORE, output, IdFile("ids.parquet", sink.getvalue(), "doc"))
    assert (done.ids, done.found) == (2, 1)
    assert sorted(read_dataset(output)["id"].to_pylist()) == [1, 30]


UUID = uuid.UUID(int=7)


@pytest.mark.parametrize(
    ("kind", "data", "ids"),
    [
        (pa.string(), b"\xef\xbb\xbfa b \r\n\nc\n", ["a b ", "c"]),
        (pa.uint8(), b" 7\n255\n", [7, 255]),
        (pa.uuid(), f"{UUID}\n".encode(), [UUID]),
        (pa.binary(16), f"{UUID}\n".encode(), [UUID.bytes]),
    ],
)
def test_text_holds_an_id_a_line(kind: pa.DataType, data: bytes, ids: list[object]) -> None:
    parsed = parse_ids(data, "ids", "id", kind)
    assert parsed.type == kind and parsed.to_pylist() == ids


@pytest.mark.parametrize(
    ("kind", "data", "message"),
    [
        (pa.uint8(), b"256\n", "line 1: '256' is no uint8"),
        (pa.int64(), b"\n1_0\n", "line 2: '1_0' is no int64"),
        (pa.uuid(), b"abc\n", "line 1: 'abc' is no"),
        (pa.float64(), b"1.0\n", "give a Parquet file"),
        (pa.string(), b"\xff\n", "neither Parquet nor UTF-8"),
        (pa.string(), b"PAR1....PAR1", "no readable Parquet"),
    ],
)
def test_what_is_no_id_is_refused_in_one_line(kind: pa.DataType, data: bytes, message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_ids(data, "ids", "id", kind)
    assert message in str(refused.value) and "\n" not in str(refused.value)


def test_the_list_is_numbered_and_can_be_taken_back(output: str) -> None:
    forget(STORE, output, id_file("a1", "a2"))
    assert remember(STORE, output, id_file("a2", "a9")) == (2, 1)
    ids = row_keys.id_hashes(pa.chunked_array([["a1", "a2"]]))
    assert are_in(ids, forgotten(STORE, output)).tolist() == [True, False]
    assert are_in(ids, forgotten(STORE, output, 1)).all() and not len(forgotten(STORE, output, 0))
    assert add_erasure(STORE, output, "undo", ids[1:]) == 2  # nothing changes
    assert not any(b"a1" in path.read_bytes() for path in Path(output, "_meta/forget").iterdir())


def test_an_empty_file_and_an_empty_place_are_refused(tmp_path: Path, output: str) -> None:
    with pytest.raises(ConfigError, match=r"ids.txt holds no id"):
        forget(STORE, output, id_file())
    with pytest.raises(SourceError, match="no finished dataset"):
        forget(STORE, str(tmp_path / "nowhere"), id_file("a"))
    assert np.array_equal(forgotten(STORE, output), row_keys.no_hashes())
