"""Whole runs without Ray: what comes out, and what a broken run leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from pipeline import stages
from pipeline.config import RunConfig
from pipeline.embedder import SimulatedEmbedder
from pipeline.errors import ConfigError, ModelError, ObjectError, SourceError
from pipeline.ledger import Ledger, dataset
from pipeline.records import Failure, Receipt, Shard
from pipeline.run import Summary, finish, in_process, open_job, run
from pipeline.stages import Job
from pipeline.storage import Store
from pipeline.verify import verify
from tests.conftest import read_dataset, simulated, write_corpus, write_jsonl

WIDTH = 64


def embed(cfg: RunConfig) -> Summary:
    return run(cfg, lambda progress: None, in_process(SimulatedEmbedder(WIDTH, 1e9)))


def problems(output: Path) -> list[str]:
    return list(verify(Store(), *dataset(Store(), str(output))))


def test_every_row_comes_out_once_in_source_order(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    summary = embed(simulated(tmp_path / "in", tmp_path / "out", qwen, dims=[64, 32]))
    summary.require_complete()
    found = read_dataset(tmp_path / "out")
    assert found["id"].to_pylist() == [row["id"] for row in rows]
    assert found["lang"].to_pylist() == ["xx"] * len(rows)
    assert found.column_names == ["id", "lang", "embedding", "embedding_32", "n_tokens", "truncated", "content_hash"]
    assert found["embedding"].type == pa.list_(pa.float32(), 64)
    assert found["embedding_32"].type == pa.list_(pa.float32(), 32)
    assert problems(tmp_path / "out") == []


def vectors(table: pa.Table, name: str) -> np.ndarray[Any, Any]:
    column = table[name].combine_chunks()
    flat: np.ndarray[Any, Any] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), -1).astype(np.float64)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_short_vectors_are_the_renormalised_long_ones(tmp_path: Path, qwen: str, dtype: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen, dims=[64, 32], dtype=dtype))
    found = read_dataset(tmp_path / "out")
    full, short = vectors(found, "embedding"), vectors(found, "embedding_32")
    np.testing.assert_allclose(np.linalg.norm(full, axis=1), 1, atol=1e-3)
    np.testing.assert_allclose(np.linalg.norm(short, axis=1), 1, atol=1e-3)
    cut = full[:, :32] / np.linalg.norm(full[:, :32], axis=1, keepdims=True)
    np.testing.assert_allclose(short, cut, atol=1e-6 if dtype == "float32" else 1e-3)


def test_pyarrow_duckdb_and_polars_read_the_output(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen, dims=[32, 64]))
    pattern = f"{tmp_path}/out/data/*/*.parquet"
    ids = [row["id"] for row in rows]
    assert pyarrow.dataset.dataset(f"{tmp_path}/out/data", format="parquet").to_table()["id"].to_pylist() == ids
    assert polars.read_parquet(pattern)["id"].to_list() == ids
    with duckdb.connect() as connection:
        found = connection.sql(f"select id, len(embedding), len(embedding_64) from '{pattern}' order by id").fetchall()
    assert found == [(each, 32, 64) for each in ids]


def test_the_footer_says_what_the_vectors_were_made_with(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, storage={"auto_mkdir": False}, prompt="passage: ")
    embed(cfg)
    (path, *_) = (tmp_path / "out" / "data").glob("*/*.parquet")
    footer = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    wanted = {"model": qwen, "revision": "", "dims": "64", "dtype": "float32", "prompt": "passage: ", "normalization": "l2"}
    assert {key.removeprefix("bulkembed."): value for key, value in footer.items()}.items() >= wanted.items()
    assert footer["bulkembed.engine"] == "simulated 1"


def test_bad_rows_of_one_file(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    texts = ["fine", None, "", 7, "long " * 500, "fine too"]
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": number % 5, "text": text, "lang": "en"} for number, text in enumerate(texts)])
    summary = embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    summary.require_complete()
    found = read_dataset(tmp_path / "out")
    assert found["id"].to_pylist() == [0, 4, 0]
    assert found["truncated"].to_pylist() == [False, True, False]
    assert found["n_tokens"].to_pylist()[1] == 64
    (rejects,) = (tmp_path / "out" / "_meta" / "rejects").glob("*/*.parquet")
    assert pq.read_table(rejects)["reason"].to_pylist() == ["null_text", "empty_text", "not_text"]
    assert (summary.progress.rejects, summary.progress.truncated, summary.progress.repeated_ids) == (3, 1, 1)
    assert problems(tmp_path / "out") == []


def test_a_file_of_nothing_but_rejects(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": number, "text": "", "lang": "x"} for number in range(3)])
    summary = embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (0, 3)
    assert problems(tmp_path / "out") == []


class Recorder:
    """A simulated engine that notes its shards and stops after `most` of them, as a killed run does."""

    def __init__(self, most: int) -> None:
        self.most, self.shards = most, [""]
        self.embedder = SimulatedEmbedder(WIDTH, 1e9)
        self.shards.clear()

    def __call__(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure]:
        for shard in shards[: self.most]:
            self.shards.append(shard.id)
            yield stages.run_shard(shard, job, self.embedder)


def test_running_again_does_only_what_is_left(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    first, second, third = Recorder(5), Recorder(1000), Recorder(1000)
    assert run(cfg, lambda progress: None, first).snapshot is None
    complete = run(cfg, lambda progress: None, second)
    assert complete.snapshot is not None
    assert len(first.shards) == 5
    assert not set(first.shards) & set(second.shards)
    again = run(cfg, lambda progress: None, third)
    assert third.shards == []
    assert again.snapshot == complete.snapshot
    embed(simulated(tmp_path / "in", tmp_path / "undisturbed", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "undisturbed"))


@pytest.mark.parametrize("crash", ["data", "receipt"])
def test_a_crash_between_two_writes_costs_work_never_truth(tmp_path: Path, qwen: str, crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    original = Store.put

    def put(self: Store, uri: str, data: bytes) -> None:
        if f"/{crash}" in uri.replace("_meta/receipts", "/receipt") and "part-2" in uri:
            raise KeyboardInterrupt
        original(self, uri, data)

    with monkeypatch.context() as patched:
        patched.setattr(Store, "put", put)
        with pytest.raises(KeyboardInterrupt):
            embed(cfg)
    with pytest.raises(SourceError, match="no finished dataset"):
        dataset(Store(), str(tmp_path / "out"))
    embed(cfg).require_complete()
    embed(simulated(tmp_path / "in", tmp_path / "undisturbed", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "undisturbed"))


def test_a_changed_source_is_embedded_and_what_is_gone_leaves_the_dataset(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    embed(cfg)
    (tmp_path / "in" / "part-0.parquet").unlink()
    write_jsonl(tmp_path / "in" / "part-4.jsonl", [{"id": 9, "text": "new", "lang": "en"}])
    recorder = Recorder(1000)
    summary = run(cfg, lambda progress: None, recorder)
    assert [shard.split("-")[1] for shard in recorder.shards] == ["4.jsonl"]
    assert summary.snapshot is not None
    assert summary.snapshot.number == 2
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [*(row["id"] for row in rows[50:]), 9]


def test_a_corrupt_object_among_good_ones(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    path = tmp_path / "in" / "part-2.parquet"
    raw = bytearray(path.read_bytes())
    raw[4:400] = bytes(396)  # the pages of the first row group; the footer is whole
    path.write_bytes(raw)
    (tmp_path / "in" / "part-9.parquet").write_bytes(b"no parquet at all")
    summary = embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert summary.snapshot is None
    assert {failure.where.split("/")[-1][:6] for failure in summary.failures} == {"part-2", "part-9"}
    assert summary.progress.documents >= 150


def test_the_run_gives_up_after_max_failures(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    started: list[str] = []

    def engine(shards: list[Shard], job: Job) -> Iterator[Failure]:
        for shard in shards:
            started.append(shard.id)
            yield Failure(shard.id, "broken")

    summary = run(simulated(tmp_path / "in", tmp_path / "out", qwen, max_failures=3), lambda progress: None, engine)
    assert len(started) == 3
    assert len(summary.failures) == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"id_column": "key"}, SourceError, "no column 'key'; its columns are id, lang, text|id, text, lang"),
        ({"text_columns": ["body"]}, SourceError, "no column 'body'"),
        ({"text_columns": ["id"]}, SourceError, "has type int64, not text"),
        ({"dims": [128]}, ConfigError, "dims: 128 is more than the 64"),
        ({"dims": [16]}, ConfigError, "below the Matryoshka range"),
        ({"model": "/no/such/model"}, ModelError, "neither a folder nor a hub name"),
        ({"source": "/no/such/source"}, SourceError, "nothing there"),
        ({"source": "nonsense://x/y"}, SourceError, "nonsense"),
        ({"max_tokens": 40_000}, ConfigError, "more than the 32768"),
    ],
)
def test_bad_input_stops_before_any_work(tmp_path: Path, qwen: str, changes: dict[str, Any], error: type[Exception], message: str) -> None:
    write_corpus(tmp_path / "in")
    values: dict[str, Any] = {"source": tmp_path / "in", "output": tmp_path / "out", "model": qwen}
    with pytest.raises(error, match=message):
        open_job(simulated(**values | changes))
    assert not (tmp_path / "out").exists()


def test_an_output_that_cannot_be_written_to(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    (tmp_path / "out").write_text("a file, not a folder")
    with pytest.raises(ConfigError, match="output: cannot"):
        embed(simulated(tmp_path / "in", tmp_path / "out", qwen))


def test_s3_and_local_runs_are_alike_bit_for_bit(tmp_path: Path, qwen: str, s3: dict[str, Any]) -> None:
    write_corpus(tmp_path / "in")
    store, root = Store(s3), f"s3://corpus/{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        store.put(f"{root}/in/{path.name}", path.read_bytes())
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    embed(simulated(f"{root}/in", f"{root}/out", qwen, storage=s3))
    local, remote = read_dataset(tmp_path / "out"), read_dataset(f"{root}/out", **s3)
    assert local.equals(remote)
    assert list(verify(store, *dataset(store, f"{root}/out"))) == []
    written = [item.uri for item in store.objects(f"{root}/out")]
    assert not [uri for uri in written if b"planted" in store.read(uri)], "credentials in what was written"


def test_verify_names_what_is_wrong(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = dataset(Store(), str(tmp_path / "out"))
    paths = [Path(ledger.data(shard)) for shard in snapshot.shards]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    short = pq.read_table(paths[2]).slice(1)
    pq.write_table(short, paths[2])
    stretched = pq.read_table(paths[3])
    column = stretched["embedding"].combine_chunks()
    doubled = pa.FixedSizeListArray.from_arrays(pa.compute.multiply(column.flatten(), pa.scalar(2, pa.float32())), type=column.type)
    pq.write_table(stretched.set_column(2, stretched.schema.field("embedding"), doubled), paths[3])
    Path(ledger.receipt(snapshot.shards[4])).unlink()
    found = "\n".join(problems(tmp_path / "out"))
    for number, message in enumerate(["missing", "unreadable", "9 rows, its receipt says 10", "not finite and of norm 1"]):
        assert any(str(paths[number]) in line and message in line for line in found.splitlines())
    assert f"{ledger.receipt(snapshot.shards[4])}: missing" in found


def test_the_layout_of_the_output(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = dataset(Store(), str(tmp_path / "out"))
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    fingerprint = ledger.fingerprint
    assert made == sorted(
        [f"_meta/runs/{fingerprint}.json", "_meta/snapshots/00000001.json"]
        + [f"_meta/receipts/{fingerprint}/{shard}.json" for shard in snapshot.shards]
        + [f"data/{fingerprint}/{shard}.parquet" for shard in snapshot.shards]
    )
    assert isinstance(ledger, Ledger)


def test_a_shard_error_names_the_shard(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    job, plan = open_job(cfg)
    (tmp_path / "in" / "part-0.parquet").write_bytes(b"")
    with pytest.raises(ObjectError, match="changed since"):
        stages.prepare(plan.pending[0], job)


def test_runs_with_other_shard_sizes_at_once_double_no_row(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    small = simulated(tmp_path / "in", tmp_path / "out", qwen)
    large = simulated(tmp_path / "in", tmp_path / "out", qwen, shards={"max_rows": 33})
    job, both_planned = open_job(large)
    run(small, lambda progress: None, Recorder(7))
    finish(job, both_planned, lambda progress: None, in_process(SimulatedEmbedder(WIDTH, 1e9)))
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
    embed(small).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
