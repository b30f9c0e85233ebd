"""What verify, and a sample embedded again, say of datasets that were harmed."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import SourceError, StorageError
from bulkembed.inspection.resample import Resample, resample
from bulkembed.inspection.verify import verify
from bulkembed.runs.recall import recall_job
from bulkembed.source.objects import source_objects
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, live_names, problems, read_dataset, simulated

WIDTH = 64


def test_verify_names_what_is_wrong(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, _ = newest_dataset(Store(), str(tmp_path / "out"))
    paths = [Path(ledger.data_uri(shard)) for shard in live_names(tmp_path / "out")]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    short = pq.read_table(paths[2]).slice(1)
    pq.write_table(short, paths[2])
    stretched = pq.read_table(paths[3])
    column = stretched["embedding"].combine_chunks()
    doubled = pa.FixedSizeListArray.from_arrays(pa.compute.multiply(column.flatten(), pa.scalar(2, pa.float32())), type=column.type)
    pq.write_table(stretched.set_column(2, stretched.schema.field("embedding"), doubled), paths[3])
    Path(ledger.receipt_uri(live_names(tmp_path / "out")[4])).unlink()
    found = "\n".join(problems(tmp_path / "out"))
    for number, message in enumerate(["missing", "unreadable", "9 rows, its receipt says 10", "not finite and of norm 1"]):
        assert any(str(paths[number]) in line and message in line for line in found.splitlines())
    assert f"{ledger.receipt_uri(live_names(tmp_path / 'out')[4])}: missing" in found


def sabotaged(tmp_path: Path, qwen: str, harm: Callable[[Path, pa.Table], None]) -> list[str]:
    """What verify and its sample say of a dataset of which one file was harmed."""
    write_corpus(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, _ = newest_dataset(Store(), str(tmp_path / "out"))
    path = Path(ledger.data_uri(live_names(tmp_path / "out")[3]))
    harm(path, pq.read_table(path))
    return problems(tmp_path / "out")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.99])
def test_verify_catches_a_flipped_byte_wherever_it_is(tmp_path: Path, qwen: str, at: float) -> None:
    def flip(path: Path, table: pa.Table) -> None:
        raw = bytearray(path.read_bytes())
        raw[int(len(raw) * at)] ^= 1
        path.write_bytes(raw)

    assert any("not those that the snapshot lists" in line for line in sabotaged(tmp_path, qwen, flip))


def test_verify_catches_a_dropped_row(tmp_path: Path, qwen: str) -> None:
    found = sabotaged(tmp_path, qwen, lambda path, table: pq.write_table(table.slice(1), path))
    assert any("rows, its receipt says" in line for line in found)


def test_verify_catches_a_swapped_row(tmp_path: Path, qwen: str) -> None:
    def swap(path: Path, table: pa.Table) -> None:
        pq.write_table(table.take(pa.array([1, 0, *range(2, table.num_rows)])), path)

    assert any("not those that the snapshot lists" in line for line in sabotaged(tmp_path, qwen, swap))


def test_verify_says_something_whatever_bit_of_its_files_is_flipped(tmp_path: Path, qwen: str) -> None:
    """A line, or the one of an error: never another exception, and never silence over other files."""
    write_corpus(tmp_path / "in", files=1, rows=30)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    chance, store, output = random.Random(5), Store(), str(tmp_path / "out")
    live = live_names(output)
    for pattern, flips in (("_meta/snapshots/*", 60), ("_meta/heads/*", 20), ("_meta/manifests/*/files*", 60), ("data/*/*", 80)):
        path = min(tmp_path.glob(f"out/{pattern}"))
        data = path.read_bytes()
        for place in chance.choices(range(len(data)), k=flips):
            flipped = bytes([data[place] ^ (1 << chance.randrange(8))])
            path.write_bytes(data[:place] + flipped + data[place + 1 :])
            try:
                found = problems(output) or live_names(output) == live
            except (StorageError, SourceError) as error:
                found = [str(error)]
            assert found, f"{path.name}: {data[place - 9 : place]!r} {flipped!r}"
            assert pattern != "data/*/*" or str(path) in str(found)
        path.write_bytes(data)
    assert list(verify(store, *newest_dataset(store, output))) == []


def again(tmp_path: Path, qwen: str, rows: int = 40) -> Resample:
    store, output, source = Store(), str(tmp_path / "out"), str(tmp_path / "in")
    _, snapshot = newest_dataset(store, output)
    job = recall_job(store, output, source, snapshot, describe(qwen, None))
    return resample(job, snapshot, source_objects(store, source), SimulatedEmbedder(WIDTH, 1e9), rows, seed=1)


@pytest.mark.parametrize("policy", ["truncate", "chunk", "mean"])
def test_a_sample_embedded_again_is_the_same(tmp_path: Path, qwen: str, policy: str) -> None:
    write_corpus(tmp_path / "in")
    forms = {"vectors": "64:float32,32:int8,64:binary", "long_documents": policy}
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, **forms, prompt="Note: "))
    found = again(tmp_path, qwen)
    assert found.problems == []
    assert found.rows == 40
    assert {name: len(cosines) for name, cosines in found.cosines.items()} == {"embedding": 40, "embedding_32": 40, "embedding_64": 40}
    assert min(cosines.min() for cosines in found.cosines.values()) > 0.999999


def test_a_sample_catches_vectors_that_changed_places(tmp_path: Path, qwen: str) -> None:
    """Even where somebody wrote the receipt anew as well."""

    def swap(path: Path, table: pa.Table) -> None:
        turned = table["embedding"].take(pa.array([*range(1, table.num_rows), 0]))
        pq.write_table(table.set_column(table.schema.get_field_index("embedding"), table.schema.field("embedding"), turned), path)

    sabotaged(tmp_path, qwen, swap)
    found = again(tmp_path, qwen, 200)
    assert any("are not those of their documents" in problem for problem in found.problems)


def test_a_sample_names_a_source_that_changed(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    (tmp_path / "in" / "part-1.jsonl").write_text('{"id": 1, "text": "other", "lang": "x"}\n')
    assert any("have changed: cannot be embedded again" in problem for problem in again(tmp_path, qwen, 200).problems)


@pytest.mark.parametrize("changes", [{}, {"long_documents": "chunk", "chunk_tokens": 16}])
def test_rows_that_have_moved_are_embedded_again_from_where_they_stand_now(tmp_path: Path, qwen: str, changes: dict[str, Any]) -> None:
    rows = write_corpus(tmp_path / "in", files=2)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, **changes)
    in_one_process(cfg)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    rows = rows[::-1]
    rows[7] = rows[7] | {"text": "new words"}
    pq.write_table(pa.Table.from_pylist(rows[:30]), tmp_path / "in/x.parquet")
    pq.write_table(pa.Table.from_pylist(rows[30:]), tmp_path / "in/y.parquet")
    in_one_process(cfg)
    found = again(tmp_path, qwen, 5000)
    assert (found.problems, found.unknown) == ([], 0)
    assert found.rows == read_dataset(tmp_path / "out").num_rows >= 100
    for path in tmp_path.glob("out/_meta/keys/*/x.parquet-*"):
        path.unlink()
    found = again(tmp_path, qwen, 5000)
    assert found.unknown == 30
    (tmp_path / "in/y.parquet").unlink()
    assert any("documents are not there any more, or have changed" in problem for problem in again(tmp_path, qwen, 5000).problems)
