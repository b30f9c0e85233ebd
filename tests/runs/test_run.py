"""Whole runs without Ray: what comes out, and what a broken run leaves."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import fsspec
import numpy as np
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest

from bulkembed.dataset.manifests import read_sources
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.dataset.vector_columns import forms_of, stored_values
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import ConfigError, ModelError, ObjectError, SourceError
from bulkembed.inspection.verify import verify
from bulkembed.records import Failure, LostAttempt, Receipt
from bulkembed.runs import stages
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish, run
from bulkembed.shards import Shard
from bulkembed.storage.store import Store
from bulkembed.vectors import matryoshka, quantize
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.runs import Recorder, in_one_process, live_names, problems, read_dataset, simulated

WIDTH = 64


def test_every_row_comes_out_once_in_source_order(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, dims=[64, 32]))
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


LIVE = "set variable files = (select string_split(rtrim(content, chr(10)), chr(10)) from read_text('{}/current.txt'))"


@pytest.mark.parametrize("where", ["local", "s3"])
def test_pyarrow_duckdb_and_polars_read_the_live_files(tmp_path: Path, qwen: str, where: str, request: pytest.FixtureRequest) -> None:
    """As the README has it, after an interrupted run and a changed source: what the folder holds is more."""
    options = request.getfixturevalue("s3") if where == "s3" else {}
    output = f"s3://corpus/{tmp_path.name}/out 1 ü" if where == "s3" else f"{tmp_path}/[out] 1 ü"
    rows = write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", output, qwen, dims=[32, 64], storage=options)
    run(cfg, lambda progress: None, Recorder(8))
    write_jsonl(tmp_path / "in" / "part-1.jsonl", [*rows[51:100], {"id": 9, "text": "new", "lang": "en"}])
    in_one_process(cfg).require_complete()
    ids = {*(row["id"] for row in rows if row is not rows[50]), 9}
    store = Store(options)
    written = [name for name in store.names(f"{output}/data/{newest_dataset(store, output)[0].fingerprint}") if name.endswith(".parquet")]
    with fsspec.open(f"{output}/current.txt", "rt", **options) as file:
        files = file.read().splitlines()
    assert len(files) < len(written)
    in_order = read_dataset(output, **options)["id"].to_pylist()
    assert (set(in_order), len(in_order)) == (ids, 200)
    filesystem = fsspec.filesystem("s3" if where == "s3" else "file", **options)
    paths = [filesystem._strip_protocol(each) for each in files]
    assert pyarrow.dataset.dataset(paths, filesystem=filesystem).to_table()["id"].to_pylist() == in_order
    names = {"key": "aws_access_key_id", "secret": "aws_secret_access_key", "endpoint_url": "aws_endpoint_url"}
    reached = {names[key]: value for key, value in options.items()} | {"aws_allow_http": "true", "aws_region": "us-east-1"}
    scan = polars.scan_parquet(files, glob=False, storage_options=reached if options else None)
    assert scan.select("id").collect()["id"].to_list() == in_order
    with duckdb.connect() as connection:
        if options:
            connection.register_filesystem(filesystem)
        connection.execute(LIVE.format(output))
        found = connection.sql("select id, len(embedding), len(embedding_64) from read_parquet(getvariable('files'))").fetchall()
    assert found == [(each, 32, 64) for each in in_order]


def test_the_footer_says_what_the_vectors_were_made_with(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, storage={"auto_mkdir": False}, prompt="passage: ")
    in_one_process(cfg)
    (path, *_) = (tmp_path / "out" / "data").glob("*/*.parquet")
    footer = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    wanted = {"model": qwen, "revision": "", "vectors": "64:float32", "prompt": "passage: ", "normalization": "l2"}
    assert {key.removeprefix("bulkembed."): value for key, value in footer.items()}.items() >= wanted.items()
    assert footer["bulkembed.engine"] == "simulated 2"


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
    in_one_process(simulated(tmp_path / "in", tmp_path / "undisturbed", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "undisturbed"))


@pytest.mark.parametrize("crash", ["data", "receipt"])
def test_a_crash_between_two_writes_costs_work_never_truth(tmp_path: Path, qwen: str, crash: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    name = {"data": "create", "receipt": "put"}[crash]
    original = getattr(Store, name)

    def write(self: Store, uri: str, data: bytes) -> Any:
        if f"/{crash}" in uri.replace("_meta/receipts", "/receipt") and "part-2" in uri:
            raise KeyboardInterrupt
        return original(self, uri, data)

    with monkeypatch.context() as patched:
        patched.setattr(Store, name, write)
        with pytest.raises(KeyboardInterrupt):
            in_one_process(cfg)
    with pytest.raises(SourceError, match="no finished dataset"):
        newest_dataset(Store(), str(tmp_path / "out"))
    in_one_process(cfg).require_complete()
    in_one_process(simulated(tmp_path / "in", tmp_path / "undisturbed", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "undisturbed"))


def test_a_changed_source_is_embedded_and_what_is_gone_leaves_the_dataset(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    (tmp_path / "in" / "part-0.parquet").unlink()
    write_jsonl(tmp_path / "in" / "part-4.jsonl", [{"id": 9, "text": "new", "lang": "en"}])
    recorder = Recorder(1000)
    summary = run(cfg.model_copy(update={"allow_deletes": 50}), lambda progress: None, recorder)
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
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert summary.snapshot is None
    assert {failure.where.split("/")[-1][:6] for failure in summary.failures} == {"part-2", "part-9"}
    assert summary.progress.counts.documents >= 150


def test_the_run_gives_up_after_max_failures(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    started: list[str] = []

    class Broken(LocalExecutor):
        def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
            for shard in shards:
                started.append(shard.id)
                yield Failure(shard.id, "broken")

    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_failures=3)
    summary = run(cfg, lambda progress: None, Broken(SimulatedEmbedder(WIDTH, 1e9)))
    assert len(started) == 3
    assert len(summary.failures) == 3


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"id_column": "key"}, SourceError, "no column 'key'; its columns are id, lang, text|id, text, lang"),
        ({"text_columns": ["body"]}, SourceError, "no column 'body'"),
        ({"text_columns": ["id"]}, SourceError, "has type int64, not text"),
        ({"dims": [128]}, ConfigError, "dims: 128 is more than the 64"),
        ({"dims": [16]}, ConfigError, "not trained for vectors of 16 dimensions"),
        ({"model": "/no/such/model"}, ModelError, "neither a folder nor a hub name"),
        ({"source": "/no/such/source"}, SourceError, "nothing there"),
        ({"source": "nonsense://x/y"}, ConfigError, "nonsense"),
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
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))


def test_s3_and_local_runs_are_alike_bit_for_bit(tmp_path: Path, qwen: str, s3: dict[str, Any]) -> None:
    write_corpus(tmp_path / "in")
    store, root = Store(s3), f"s3://corpus/{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        store.put(f"{root}/in/{path.name}", path.read_bytes())
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    in_one_process(simulated(f"{root}/in", f"{root}/out", qwen, storage=s3))
    local, remote = read_dataset(tmp_path / "out"), read_dataset(f"{root}/out", **s3)
    assert local.equals(remote)
    assert list(verify(store, *newest_dataset(store, f"{root}/out"))) == []
    written = [item.uri for item in store.objects(f"{root}/out")]
    assert not [uri for uri in written if b"planted" in store.read(uri)], "credentials in what was written"


def test_the_layout_of_the_output(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    fingerprint = ledger.fingerprint
    assert made == sorted(
        ["current.txt", f"_meta/runs/{fingerprint}.json", "_meta/snapshots/00000001.json", "_meta/heads/00000001.json"]
        + [f"_meta/manifests/{snapshot.manifest}/{kind}-00000.parquet" for kind in ("files", "sources", "rejected")]
        + [f"_meta/keys/{fingerprint}/{item.object_id}.parquet" for item in read_sources(Store(), str(tmp_path / "out"), snapshot.manifest)]
        + [f"_meta/receipts/{fingerprint}/{shard}.json" for shard in live_names(tmp_path / "out")]
        + [f"data/{fingerprint}/{shard}.parquet" for shard in live_names(tmp_path / "out")]
    )
    live = (tmp_path / "out" / "current.txt").read_text().splitlines()
    assert live == [str(tmp_path / "out" / "data" / fingerprint / f"{shard}.parquet") for shard in live_names(tmp_path / "out")]


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
    finish(job, both_planned, lambda progress: None, LocalExecutor(SimulatedEmbedder(WIDTH, 1e9)))
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
    in_one_process(small).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]


@pytest.mark.parametrize("order", ["at once", "in two runs"])
def test_int8_ranges_are_the_same_for_every_shard_and_after_a_resume(tmp_path: Path, qwen: str, order: str) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, vectors="64:float32,64:int8,32:int8,64:binary")
    if order == "in two runs":
        assert run(cfg, lambda progress: None, Recorder(4)).snapshot is None
        write_jsonl(tmp_path / "in" / "part-9.jsonl", [{"id": 9, "text": "new since the ranges were set", "lang": "en"}])
    in_one_process(cfg).require_complete()
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    ranges = quantize.int8_ranges_from_text(snapshot.provenance)
    assert {name: value.shape for name, value in ranges.items()} == {"embedding_64": (2, 64), "embedding_32": (2, 32)}
    for shard in live_names(tmp_path / "out"):
        footer = pq.read_schema(ledger.data_uri(shard)).metadata
        mine = quantize.int8_ranges_from_text({key.decode().removeprefix("bulkembed."): value.decode() for key, value in footer.items()})
        assert all(np.array_equal(mine[name], ranges[name]) for name in ranges)
    found = read_dataset(tmp_path / "out")
    assert found["embedding_64"].type == pa.list_(pa.int8(), 64)
    assert found["embedding_64_binary"].type == pa.list_(pa.uint8(), 8)
    full = vectors(found, "embedding")
    for name, form in forms_of(snapshot.provenance).items():
        decoded = quantize.decode_vectors(stored_values(found, name), form, ranges.get(name))
        least = {"float32": 0.999999, "int8": 0.999, "binary": 0.6}[form.dtype]
        alike = np.sort(matryoshka.cosines(decoded, full[:, : form.dim]))
        # What the new document has outside the ranges is clipped.
        assert alike[1 if order == "in two runs" else 0] >= least
        assert alike[0] >= min(least, 0.99)
    assert problems(tmp_path / "out") == []


def test_a_second_attempt_leaves_what_stands(tmp_path: Path, qwen: str) -> None:
    """Data files never change once they are there: the receipt of either attempt is true of them."""
    write_corpus(tmp_path / "in", files=1)
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))
    first = stages.run_shard(plan.pending[0], job, SimulatedEmbedder(WIDTH, 1e9))
    path = Path(job.ledger.data_uri(first.shard))
    written = path.stat()

    class Other(SimulatedEmbedder):
        def _embed(self, documents: Any) -> Any:
            return super()._embed(documents) + np.float32(1e-3)

    second = stages.run_shard(plan.pending[0], job, Other(WIDTH, 1e9))
    assert path.stat().st_mtime_ns == written.st_mtime_ns
    assert second.data_sha256 == first.data_sha256
    path.write_bytes(path.read_bytes()[:-9])
    third = stages.run_shard(plan.pending[0], job, SimulatedEmbedder(WIDTH, 1e9))
    assert third.data_sha256 == first.data_sha256
    assert path.stat().st_size == written.st_size
