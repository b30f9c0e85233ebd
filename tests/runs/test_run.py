"""Whole runs without Ray: what comes out, and what a broken run leaves."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
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

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.dataset.vector_columns import forms_of, stored_values
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import ConfigError, ModelError, ObjectError, SourceError
from bulkembed.inspection.resample import Resample, resample
from bulkembed.inspection.verify import verify
from bulkembed.records import Failure, LostAttempt, Receipt, Shard
from bulkembed.runs import stages
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job, recall_job
from bulkembed.runs.run import Summary, finish, run
from bulkembed.source.objects import source_objects
from bulkembed.storage.store import Store
from bulkembed.vectors import matryoshka, quantize
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.runs import Recorder, read_dataset, simulated

WIDTH = 64


def embed(cfg: RunConfig) -> Summary:
    return run(cfg, lambda progress: None, LocalExecutor(SimulatedEmbedder(WIDTH, 1e9)))


def problems(output: Path) -> list[str]:
    return list(verify(Store(), *newest_dataset(Store(), str(output))))


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


LIVE = "set variable files = (select string_split(rtrim(content, chr(10)), chr(10)) from read_text('{}/current.txt'))"


@pytest.mark.parametrize("where", ["local", "s3"])
def test_pyarrow_duckdb_and_polars_read_the_live_files(tmp_path: Path, qwen: str, where: str, request: pytest.FixtureRequest) -> None:
    """As the README has it, after an interrupted run and a changed source: what the folder holds is more."""
    options = request.getfixturevalue("s3") if where == "s3" else {}
    output = f"s3://corpus/{tmp_path.name}/out 1 ü" if where == "s3" else f"{tmp_path}/[out] 1 ü"
    rows = write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", output, qwen, dims=[32, 64], storage=options)
    run(cfg, lambda progress: None, Recorder(8))
    write_jsonl(tmp_path / "in" / "part-1.jsonl", [*rows[50:100], {"id": 9, "text": "new", "lang": "en"}])
    embed(cfg).require_complete()
    ids = [*(row["id"] for row in rows[:100]), 9, *(row["id"] for row in rows[100:])]
    store = Store(options)
    written = [name for name in store.names(f"{output}/data/{newest_dataset(store, output)[0].fingerprint}") if name.endswith(".parquet")]
    with fsspec.open(f"{output}/current.txt", "rt", **options) as file:
        files = file.read().splitlines()
    assert len(files) < len(written)
    filesystem = fsspec.filesystem("s3" if where == "s3" else "file", **options)
    paths = [filesystem._strip_protocol(each) for each in files]
    assert pyarrow.dataset.dataset(paths, filesystem=filesystem).to_table()["id"].to_pylist() == ids
    names = {"key": "aws_access_key_id", "secret": "aws_secret_access_key", "endpoint_url": "aws_endpoint_url"}
    reached = {names[key]: value for key, value in options.items()} | {"aws_allow_http": "true", "aws_region": "us-east-1"}
    scan = polars.scan_parquet(files, glob=False, storage_options=reached if options else None)
    assert scan.select("id").collect()["id"].to_list() == ids
    with duckdb.connect() as connection:
        if options:
            connection.register_filesystem(filesystem)
        connection.execute(LIVE.format(output))
        found = connection.sql("select id, len(embedding), len(embedding_64) from read_parquet(getvariable('files'))").fetchall()
    assert found == [(each, 32, 64) for each in ids]


def test_the_footer_says_what_the_vectors_were_made_with(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, storage={"auto_mkdir": False}, prompt="passage: ")
    embed(cfg)
    (path, *_) = (tmp_path / "out" / "data").glob("*/*.parquet")
    footer = {key.decode(): value.decode() for key, value in pq.read_schema(path).metadata.items()}
    wanted = {"model": qwen, "revision": "", "vectors": "64:float32", "prompt": "passage: ", "normalization": "l2"}
    assert {key.removeprefix("bulkembed."): value for key, value in footer.items()}.items() >= wanted.items()
    assert footer["bulkembed.engine"] == "simulated 2"


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
    counts = summary.progress.counts
    assert (counts.rejects, counts.truncated, counts.repeated_ids) == (3, 1, 1)
    assert problems(tmp_path / "out") == []


@pytest.mark.parametrize("value", [0.0, 1e-21, np.nan, np.inf])
@pytest.mark.parametrize("forms", ["64:float32,32:float16", "64:float16,48:binary,32:int8"])
def test_a_vector_whose_first_components_have_no_direction_fails_its_row_alone(tmp_path: Path, qwen: str, value: float, forms: str) -> None:
    class Flat(SimulatedEmbedder):
        def _embed(self, documents: Any) -> Any:
            found = super()._embed(documents)
            found[[len(ids) == poison for ids in documents], :32] = value
            return found

    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": "word " * (1 + n), "lang": "xx"} for n in range(9)])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, vectors=forms)
    poison = len(open_job(cfg)[0].tokenizer.encode(["word " * 4]).of(0))
    run(cfg, lambda progress: None, LocalExecutor(Flat(WIDTH, 1e9))).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 1, 2, 4, 5, 6, 7, 8]
    (rejects,) = (tmp_path / "out" / "_meta" / "rejects").glob("*/*.parquet")
    (reject,) = pq.read_table(rejects).to_pylist()
    assert (reject["id"], reject["reason"]) == (3, "bad_vector")
    assert "its first 32 components" in reject["detail"]
    assert problems(tmp_path / "out") == []


def test_a_file_of_nothing_but_rejects(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": number, "text": "", "lang": "x"} for number in range(3)])
    summary = embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (0, 3)
    assert problems(tmp_path / "out") == []


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
    name = {"data": "create", "receipt": "put"}[crash]
    original = getattr(Store, name)

    def write(self: Store, uri: str, data: bytes) -> Any:
        if f"/{crash}" in uri.replace("_meta/receipts", "/receipt") and "part-2" in uri:
            raise KeyboardInterrupt
        return original(self, uri, data)

    with monkeypatch.context() as patched:
        patched.setattr(Store, name, write)
        with pytest.raises(KeyboardInterrupt):
            embed(cfg)
    with pytest.raises(SourceError, match="no finished dataset"):
        newest_dataset(Store(), str(tmp_path / "out"))
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
    summary = run(cfg.model_copy(update={"allow_deletes": 49}), lambda progress: None, recorder)
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
    assert list(verify(store, *newest_dataset(store, f"{root}/out"))) == []
    written = [item.uri for item in store.objects(f"{root}/out")]
    assert not [uri for uri in written if b"planted" in store.read(uri)], "credentials in what was written"


def test_verify_names_what_is_wrong(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    paths = [Path(ledger.data_uri(shard)) for shard in snapshot.shards]
    paths[0].unlink()
    paths[1].write_bytes(paths[1].read_bytes()[:-20])
    short = pq.read_table(paths[2]).slice(1)
    pq.write_table(short, paths[2])
    stretched = pq.read_table(paths[3])
    column = stretched["embedding"].combine_chunks()
    doubled = pa.FixedSizeListArray.from_arrays(pa.compute.multiply(column.flatten(), pa.scalar(2, pa.float32())), type=column.type)
    pq.write_table(stretched.set_column(2, stretched.schema.field("embedding"), doubled), paths[3])
    Path(ledger.receipt_uri(snapshot.shards[4])).unlink()
    found = "\n".join(problems(tmp_path / "out"))
    for number, message in enumerate(["missing", "unreadable", "9 rows, its receipt says 10", "not finite and of norm 1"]):
        assert any(str(paths[number]) in line and message in line for line in found.splitlines())
    assert f"{ledger.receipt_uri(snapshot.shards[4])}: missing" in found


def test_the_layout_of_the_output(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    made = sorted(str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file())
    fingerprint = ledger.fingerprint
    assert made == sorted(
        ["current.txt", f"_meta/runs/{fingerprint}.json", "_meta/snapshots/00000001.json"]
        + [f"_meta/receipts/{fingerprint}/{shard}.json" for shard in snapshot.shards]
        + [f"data/{fingerprint}/{shard}.parquet" for shard in snapshot.shards]
    )
    live = (tmp_path / "out" / "current.txt").read_text().splitlines()
    assert live == [str(tmp_path / "out" / "data" / fingerprint / f"{shard}.parquet") for shard in snapshot.shards]


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
    embed(small).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]


@pytest.mark.parametrize("order", ["at once", "in two runs"])
def test_int8_ranges_are_the_same_for_every_shard_and_after_a_resume(tmp_path: Path, qwen: str, order: str) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, vectors="64:float32,64:int8,32:int8,64:binary")
    if order == "in two runs":
        assert run(cfg, lambda progress: None, Recorder(4)).snapshot is None
        write_jsonl(tmp_path / "in" / "part-9.jsonl", [{"id": 9, "text": "new since the ranges were set", "lang": "en"}])
    embed(cfg).require_complete()
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    ranges = quantize.int8_ranges_from_text(snapshot.provenance)
    assert {name: value.shape for name, value in ranges.items()} == {"embedding_64": (2, 64), "embedding_32": (2, 32)}
    for shard in snapshot.shards:
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


RUBBISH = [
    "\u691c\u7d22\u306f\u901f\u3044",
    "\u0627\u0644\u0642\u0627\u0647\u0631\u0629",
    "\u0928\u092e\u0938\u094d\u0924\u0947",
    "\U0001f469\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466",
    "e\u0301\u0323" * 50,
    "before\0after",
    "\0",
    "var a=1;" * 130_000,
    "\ufeff",
    "\u202eright to left",
    "fine",
]


def test_text_of_every_kind_is_embedded_in_its_own_row(tmp_path: Path, qwen: str, minilm: str) -> None:
    (tmp_path / "in").mkdir()
    rows = [{"id": number, "text": text, "lang": "xx"} for number, text in enumerate(RUBBISH)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "in" / "a.parquet")
    write_jsonl(tmp_path / "in" / "b.jsonl", rows)
    for model in (qwen, minilm):
        cfg = simulated(tmp_path / "in", tmp_path / Path(model).name, model)
        job, plan = open_job(cfg)
        finish(job, plan, lambda progress: None, LocalExecutor(SimulatedEmbedder(job.model.width, 1e9))).require_complete()
        found = read_dataset(tmp_path / Path(model).name)
        assert found["id"].to_pylist() == [row["id"] for row in rows] * 2
        hashes = [hashlib.blake2b(text.encode(), digest_size=16).digest() for text in RUBBISH]
        assert found["content_hash"].to_pylist() == hashes * 2
        full = vectors(found, "embedding")
        np.testing.assert_array_equal(full[: len(rows)], full[len(rows) :])


def test_what_is_no_text_is_rejected_and_shifts_no_row(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    lines = [
        b'{"id": 0, "text": "fine", "lang": "x"}',
        b'{"id": 1, "text": "lone \\ud800 surrogate", "lang": "x"}',
        b'{"id": 2, "text": "not \xff utf-8", "lang": "x"}',
        b'{"id": 3, "text": "fine too", "lang": "x"}',
        b'{"id": 4, "text": "cut off',
        b"[5]",
        b'{"id": 6, "text": "last", "lang": "x"}',
    ]
    (tmp_path / "in" / "a.jsonl").write_bytes(b"\n".join(lines))
    table = pa.table({"id": [7, 8, 9], "text": pa.array([b"good", b"bad \xc3\x28", b"good too"], pa.binary()), "lang": ["x"] * 3})
    pq.write_table(table, tmp_path / "in" / "b.parquet")
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 3, 6, 7, 9]
    reasons = [pq.read_table(path).select(["row", "reason"]).to_pylist() for path in sorted(tmp_path.glob("out/_meta/rejects/*/*"))]
    assert [(row["row"], row["reason"]) for row in reasons[0]] == [(1, "not_json"), (2, "not_json"), (4, "not_json"), (5, "not_json")]
    assert [(row["row"], row["reason"]) for row in reasons[1]] == [(1, "undecodable")]


def sabotaged(tmp_path: Path, qwen: str, harm: Callable[[Path, pa.Table], None]) -> list[str]:
    """What verify and its sample say of a dataset of which one file was harmed."""
    write_corpus(tmp_path / "in")
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    path = Path(ledger.data_uri(snapshot.shards[3]))
    harm(path, pq.read_table(path))
    return problems(tmp_path / "out")


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9, 0.99])
def test_verify_catches_a_flipped_byte_wherever_it_is(tmp_path: Path, qwen: str, at: float) -> None:
    def flip(path: Path, table: pa.Table) -> None:
        raw = bytearray(path.read_bytes())
        raw[int(len(raw) * at)] ^= 1
        path.write_bytes(raw)

    assert any("not those that its receipt was written for" in line for line in sabotaged(tmp_path, qwen, flip))


def test_verify_catches_a_dropped_row(tmp_path: Path, qwen: str) -> None:
    found = sabotaged(tmp_path, qwen, lambda path, table: pq.write_table(table.slice(1), path))
    assert any("rows, its receipt says" in line for line in found)


def test_verify_catches_a_swapped_row(tmp_path: Path, qwen: str) -> None:
    def swap(path: Path, table: pa.Table) -> None:
        pq.write_table(table.take(pa.array([1, 0, *range(2, table.num_rows)])), path)

    assert any("not those that its receipt was written for" in line for line in sabotaged(tmp_path, qwen, swap))


def again(tmp_path: Path, qwen: str, rows: int = 40) -> Resample:
    store, output, source = Store(), str(tmp_path / "out"), str(tmp_path / "in")
    _, snapshot = newest_dataset(store, output)
    job = recall_job(store, output, source, snapshot, describe(qwen, None))
    return resample(job, snapshot, source_objects(store, source), SimulatedEmbedder(WIDTH, 1e9), rows, seed=1)


@pytest.mark.parametrize("policy", ["truncate", "chunk", "mean"])
def test_a_sample_embedded_again_is_the_same(tmp_path: Path, qwen: str, policy: str) -> None:
    write_corpus(tmp_path / "in")
    forms = {"vectors": "64:float32,32:int8,64:binary", "long_documents": policy}
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen, **forms, prompt="Note: "))
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
    embed(simulated(tmp_path / "in", tmp_path / "out", qwen))
    (tmp_path / "in" / "part-1.jsonl").write_text('{"id": 1, "text": "other", "lang": "x"}\n')
    assert any("has changed" in problem for problem in again(tmp_path, qwen, 200).problems)


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
