"""Rubbish in: rows or one clear error out, in bounded memory, and never a hang."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import load
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.errors import BulkembedError, ConfigError, ObjectError
from bulkembed.runs.lookup import open_job
from bulkembed.source import objects, planning, reader
from bulkembed.source.columns import carried_columns
from bulkembed.source.layout import layout_of
from bulkembed.source.planning import Bounds
from bulkembed.storage.store import Store
from tests.support.corpora import documents, write_jsonl
from tests.support.models import recipe
from tests.support.processes import ROOT
from tests.support.runs import in_one_process, read_dataset, simulated

ROWS = documents(60)
PACKERS: dict[str, Callable[[bytes], bytes]] = {
    ".jsonl": bytes,
    ".jsonl.gz": gzip.compress,
    ".jsonl.zst": zstd.compress,
    ".jsonl.bz2": bz2.compress,
}
QUICK = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


def valid(suffix: str) -> bytes:
    if suffix == ".parquet":
        sink = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(ROWS), sink, row_group_size=20)
        return sink.getvalue()
    if suffix in (".arrow", ".arrows"):
        table, sink = pa.Table.from_pylist(ROWS), io.BytesIO()
        with (pa.ipc.new_file if suffix == ".arrow" else pa.ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=20)
        return sink.getvalue()
    if suffix == ".csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, ["id", "text", "lang"])
        writer.writeheader()
        writer.writerows(ROWS)
        return text.getvalue().encode()
    return PACKERS[suffix](b"".join(orjson.dumps(row) + b"\n" for row in ROWS))


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    raw = bytearray(whole)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, max(0, len(raw) - 1)))
        match draw(st.sampled_from(["flip", "zero", "cut", "insert", "swap", "double"])):
            case "flip":
                raw[at : at + 1] = bytes([(raw[at] if raw else 0) ^ (1 << draw(st.integers(0, 7)))])
            case "zero":
                raw[at : at + 64] = bytes(min(64, len(raw) - at))
            case "cut":
                del raw[at:]
            case "insert":
                raw[at:at] = draw(st.binary(max_size=32))
            case "swap":
                raw[at : at + 4], raw[:4] = raw[:4], raw[at : at + 4]
            case "double":
                raw += raw[at:]
        raw = raw or bytearray(b"\0")
    return bytes(raw)


def read_all(path: Path, model: str) -> int:
    """Rows and rejects of all shards of one file."""
    store = Store()
    cfg = RunConfig.model_validate({"source": str(path), "output": "none", "model": model, "keep_columns": ["lang"]})
    (item,) = objects.source_objects(store, str(path))
    carried = carried_columns(store, [item], recipe(cfg), cfg.source_text)
    found, _ = planning.plan(store, [item], lambda item, layout: None, [], Bounds(13, 1 << 40))
    shards = [reader.read_documents(store, shard, recipe(cfg), carried) for shard in found]
    return sum(len(shard.texts) + shard.rejects.num_rows for shard in shards)


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".arrows", ".csv", *PACKERS])
def test_damaged_files_give_rows_or_one_clear_error(tmp_path: Path, suffix: str) -> None:
    whole, path = valid(suffix), tmp_path / f"a{suffix}"
    path.write_bytes(whole)
    assert read_all(path, "m") == len(ROWS)

    @QUICK
    @given(damaged(whole))
    def check(raw: bytes) -> None:
        path.write_bytes(raw)
        try:
            read_all(path, "m")
        except BulkembedError as error:
            assert "\n" not in str(error)

    check()


BOMB = """
import sys
from pathlib import Path
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_objects
from bulkembed.storage.store import Store
layout = layout_of(Store(), source_objects(Store(), sys.argv[1])[0])
# Not of `getrusage`: its peak begins with that of the process that started this one.
(peak,) = (line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
print(layout.rows, int(peak) // 1024)
"""


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_an_archive_of_one_endless_line_stays_in_bounded_memory(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"a.jsonl.{kind}"
    piece = b"x" * (1 << 24)
    with gzip.open(path, "wb", 1) if kind == "gz" else zstd.open(path, "wb") as file:
        file.write(b'{"id": 1, "text": "first"}\n{"id": 2, "text": "')
        for _ in range(40):
            file.write(piece)
        file.write(b'"}\n{"id": 3, "text": "last"}\n')
    result = subprocess.run([sys.executable, "-c", BOMB, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, check=True)
    rows, peak = map(int, result.stdout.split())
    assert rows == 3
    assert peak < 500, "MB; the line alone has 640"


def test_a_line_that_is_too_long_is_rejected_and_shifts_no_row(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkembed.formats.text_lines.MAX_LINE_BYTES", 200)
    (tmp_path / "in").mkdir()
    texts = ["short", "long " * 100, "after", "x" * 500, "last"]
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": text, "lang": "x"} for n, text in enumerate(texts)])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, shards={"max_rows": 2})).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 2, 4]
    rejects = pa.concat_tables([pq.read_table(path) for path in sorted(tmp_path.glob("out/_meta/rejects/*/*"))])
    assert [(row["row"], row["reason"]) for row in rejects.to_pylist()] == [(1, "line_too_long"), (3, "line_too_long")]


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1PAR1", b"\x1f\x8b", bytes(1000), b"\xff" * 50])
@pytest.mark.parametrize("suffix", [".parquet", ".jsonl.gz", ".jsonl.zst"])
def test_what_is_no_file_of_its_kind_is_named(tmp_path: Path, content: bytes, suffix: str) -> None:
    (tmp_path / f"a{suffix}").write_bytes(content)
    (item,) = objects.source_objects(Store(), str(tmp_path))
    try:
        assert layout_of(Store(), item).rows == 0
    except ObjectError as error:
        assert f"a{suffix}" in str(error)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([["a"], ["b"]]),
        pa.array([{"x": 1}, {"x": 2}]),
        pa.array([[("k", 1)], []], pa.map_(pa.string(), pa.int32())),
        pa.array([1, 2]),
        pa.array([True, False]),
    ],
    ids=["list", "struct", "map", "number", "bool"],
)
def test_a_text_column_of_another_type_is_refused(tmp_path: Path, qwen: str, column: pa.Array) -> None:
    (tmp_path / "in").mkdir()
    pq.write_table(pa.table({"id": [1, 2], "text": column, "lang": ["x", "x"]}), tmp_path / "in" / "a.parquet")
    with pytest.raises(BulkembedError, match="text column 'text' has type"):
        open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))


def test_absurd_schemas_are_read(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    table = pa.table({f"c{number}": np.zeros(3) for number in range(3000)} | {"text": pa.array(["a", "b", "a"]).dictionary_encode()})
    ids = pa.array([1, 2, 3], pa.decimal128(30, 2))
    table = table.append_column("id", ids).append_column("lang", pa.array(["x"] * 3).dictionary_encode())
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert read_dataset(tmp_path / "out")["id"].type == ids.type


@pytest.mark.parametrize("name", ["id", "text"])
def test_a_column_that_comes_twice_is_refused(tmp_path: Path, qwen: str, name: str) -> None:
    (tmp_path / "in").mkdir()
    names = ["id", "text", "lang", name]
    table = pa.Table.from_arrays([pa.array(["1"]), pa.array(["a"]), pa.array(["x"]), pa.array(["again"])], names=names)
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    with pytest.raises(BulkembedError, match=name):
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()


def test_thousands_of_tiny_files(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    for number in range(2000):
        write_jsonl(tmp_path / "in" / f"{number:05d}.jsonl", [{"id": number, "text": "t", "lang": "x"}])
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, limit=1500))
    assert plan.night is not None
    assert (len(plan.objects), plan.night.counts.added) == (2000, 1500)
    assert plan.rows_pending == 1, "they all have the same text"
    assert job.carried.names == ["id", "lang"]


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


KEYS_OF_CONFIGS = st.sampled_from(sorted(RunConfig.model_fields)) | st.text(st.characters(categories=["L", "N", "P"]), max_size=10)


@given(st.dictionaries(KEYS_OF_CONFIGS, VALUES, max_size=6))
@example({"ray": {"\n": None}})
def test_any_configuration_is_taken_or_refused_in_one_line(values: dict[str, Any]) -> None:
    try:
        load(None, {"source": "in", "output": "out", "model": "m"} | values)
    except ConfigError as error:
        assert "\n" not in str(error)
        assert any(str(error).startswith(key) for key in [*RunConfig.model_fields, *values]), "the line begins with a key"


KEYS = ["../../escape", "a\nb", 'quo"te', "über/straße", "x" * 180, "..", "semi;colon", "per%2Fcent", "tab\tkey"]


def test_hostile_keys_stay_inside_the_output(tmp_path: Path, qwen: str) -> None:
    names = [objects.object_id(f"{key}.jsonl", "v") for key in KEYS]
    assert len(set(names)) == len(KEYS)
    for name in names:
        assert name.isascii()
        assert name.isprintable()
        assert "/" not in name
        assert not name.startswith(".")
    (tmp_path / "in" / "über").mkdir(parents=True)
    for key in ("a\nb", 'quo"te', "über/straße", "semi;colon", "tab\tkey"):
        write_jsonl(tmp_path / "in" / f"{key}.jsonl", [{"id": key, "text": key, "lang": "x"}])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    assert read_dataset(tmp_path / "out").num_rows == 5
    _, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    assert all(path.is_relative_to(tmp_path / "out") for path in tmp_path.rglob("*.parquet"))
    assert snapshot.files == 5
