"""Another recipe beside the current dataset: embedded or derived, caught up, switched to, and gone back from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

import bulkembed
from bulkembed.errors import HeldBack
from tests.support.commands import in_process, job
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.nights import CountingEmbedder, sorted_rows
from tests.support.runs import here, in_one_process, problems, read_dataset, simulated

NEW = ("--prompt", "new: ")


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> CountingEmbedder:
    """The engine of all runs of commands."""
    embedder = CountingEmbedder()
    here(monkeypatch, embedder)
    return embedder


def reindex(tmp_path: Path, model: str, *more: object) -> tuple[int, dict[str, Any], str]:
    """The exit code, the line, and what it says beside."""
    _, *words = job(tmp_path, model, *more)
    result = in_process("reindex", "--json", *words)
    return result.returncode, json.loads(result.stdout), result.stderr


def current(tmp_path: Path) -> int:
    return bulkembed.current(tmp_path / "out").number


@pytest.fixture
def old(tmp_path: Path, qwen: str, engine: CountingEmbedder) -> Path:
    """A current dataset of 100 documents, and its source."""
    write_corpus(tmp_path / "in", files=2)
    assert in_process(*job(tmp_path, qwen)).returncode == 0
    engine.seen.clear()
    return tmp_path / "in"


def test_a_reindex_leaves_readers_alone_and_says_how_to_switch(tmp_path: Path, qwen: str, old: Path, engine: CountingEmbedder) -> None:
    before = read_dataset(tmp_path / "out")
    code, line, said = reindex(tmp_path, qwen, *NEW)
    assert (code, line["snapshot"], line["parent"], line["current"], line["embedded"]) == (0, 2, None, False, 100)
    advice = f"bulkembed publish --output {tmp_path}/out --snapshot 2"
    assert f"`{advice}` switches readers over" in said
    assert read_dataset(tmp_path / "out").equals(before)
    write_jsonl(old / "tonight.jsonl", [{"id": 5, "text": "new tonight", "lang": "en"}])
    nightly = in_process(*job(tmp_path, qwen))  # of the old configuration: it goes on, and does not switch back later
    assert "snapshot 3: 101 documents, which is current" in nightly.stdout
    engine.seen.clear()
    code, line, _ = reindex(tmp_path, qwen, *NEW, "--publish")
    assert (code, line["snapshot"], line["parent"], line["current"], line["embedded"]) == (0, 4, 2, True, 1)
    assert len(engine.seen) == 1
    late = in_process(*job(tmp_path, qwen))
    assert late.returncode == 0
    assert current(tmp_path) == 4
    back = in_process("rollback", "--output", tmp_path / "out", "--to", 3)
    assert (back.returncode, current(tmp_path)) == (0, 3)
    assert len(engine.seen) == 1, "no engine for the way back"


def test_a_switch_catches_up_with_what_changed_meanwhile(
    tmp_path: Path, qwen: str, old: Path, engine: CountingEmbedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed = CountingEmbedder.embed

    def change(self: CountingEmbedder, documents: Any) -> Any:
        if len(self.seen) > 50 and not (old / "meanwhile.jsonl").exists():
            write_jsonl(old / "meanwhile.jsonl", [{"id": 5, "text": "came meanwhile", "lang": "en"}])
        return embed(self, documents)

    monkeypatch.setattr(CountingEmbedder, "embed", change)
    code, line, _ = reindex(tmp_path, qwen, *NEW, "--publish", "--run-key", "monday")
    assert (code, line["snapshot"], line["current"], line["documents"], line["embedded"]) == (0, 3, True, 101, 101)
    assert problems(tmp_path / "out") == []


def test_no_line_with_far_fewer_documents_becomes_current(tmp_path: Path, qwen: str, old: Path, engine: CountingEmbedder) -> None:
    (old / "part-1.jsonl").unlink()
    code, line, _ = reindex(tmp_path, qwen, *NEW, "--publish")
    assert (code, line["snapshot"], line["current"], current(tmp_path)) == (3, 2, False, 1)
    assert "snapshot 2 has 50 documents, 50 fewer than the current snapshot 1, more than max_deletes (0.1)" in line["error"]
    publish = ("publish", "--output", tmp_path / "out", "--snapshot", 2, "--allow-deletes")
    refused = in_process(*publish, 49)
    assert (refused.returncode, current(tmp_path)) == (3, 1)
    assert refused.stderr.endswith("more than --allow-deletes 49; let them go with --allow-deletes 50\n")
    assert in_process(*publish, 50).returncode == 0
    assert current(tmp_path) == 2
    with pytest.raises(HeldBack):  # nor a trial of another line
        in_process(*job(tmp_path, qwen, "--prompt", "x: ", "--limit", 3))
        bulkembed.publish(tmp_path / "out", 3)
    assert bulkembed.publish(tmp_path / "out", 1).number == 1, "more documents are no danger"


def vectors(table: pa.Table) -> Any:
    column = table["embedding"].combine_chunks()
    return column.flatten().to_numpy().reshape(len(column), -1)


def line_from(tmp_path: Path, qwen: str, old: dict[str, Any], new: dict[str, Any], files: int = 2) -> tuple[pa.Table, pa.Table, int]:
    """The rows of a line that was made beside another one, those of a run from scratch, and the documents that met the engine."""
    write_corpus(tmp_path / "in", files=files)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, **old)).require_complete()
    summary = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, **new))
    summary.require_complete()
    assert summary.snapshot is not None
    assert summary.snapshot.number == 2
    bulkembed.publish(tmp_path / "out", 2)
    assert problems(tmp_path / "out") == []
    in_one_process(simulated(tmp_path / "in", tmp_path / "scratch", qwen, **new))
    return read_dataset(tmp_path / "out"), read_dataset(tmp_path / "scratch"), summary.progress.counts.documents


def test_fewer_dims_are_cut_where_that_is_asked_for(tmp_path: Path, qwen: str) -> None:
    found, scratch, embedded = line_from(tmp_path, qwen, {"dims": [64]}, {"dims": [32], "derive": True})
    assert embedded == 0
    assert found["embedding"].type == pa.list_(pa.float32(), 32)
    assert found["id"].to_pylist() == scratch["id"].to_pylist()
    np.testing.assert_allclose(vectors(found), vectors(scratch), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(vectors(found), axis=1), 1, atol=1e-6)


def test_fewer_dims_are_embedded_where_it_is_not(tmp_path: Path, qwen: str) -> None:
    assert line_from(tmp_path, qwen, {"dims": [64]}, {"dims": [32]})[2] == 100


@pytest.mark.parametrize("forms", ["64:float16", "64:float16,32:int8,64:binary"])
def test_another_kept_column_needs_no_engine(tmp_path: Path, qwen: str, forms: str) -> None:
    """Also with int8 forms: a new line takes the ranges of the other one."""
    old, new = {"vectors": forms, "keep_columns": []}, {"vectors": forms, "keep_columns": ["lang"]}
    found, scratch, embedded = line_from(tmp_path, qwen, old, new)
    assert embedded == 0
    assert sorted_rows(found).equals(sorted_rows(scratch))


def test_a_line_that_took_ranges_keeps_them(tmp_path: Path, qwen: str) -> None:
    """Final ranges are those of its own line from then on, and what is new is quantized by them."""
    old, new = {"vectors": "64:int8", "keep_columns": []}, {"vectors": "32:float32,64:int8"}
    write_corpus(tmp_path / "in", files=2, rows=1100)
    first = in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, shards={"max_rows": 500}, **old))
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, shards={"max_rows": 500}, **new)
    second = in_one_process(cfg)
    (wanted,), (found,) = first.job.int8_ranges.values(), second.job.int8_ranges.values()
    assert np.array_equal(found, wanted)
    write_jsonl(tmp_path / "in" / "tonight.jsonl", [{"id": 5, "text": "new tonight", "lang": "en"}])
    third = in_one_process(cfg)
    assert third.job.fingerprint == second.job.fingerprint
    assert third.progress.counts.documents == 1
