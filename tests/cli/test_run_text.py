"""What `plan` and `run` print of a few nights."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bulkembed import api
from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.report.run_text import plan_text, summary_text
from bulkembed.runs import lookup
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.lookup import open_job
from bulkembed.runs.night import NightCounts
from bulkembed.runs.run import finish
from tests.support.corpora import write_jsonl
from tests.support.runs import in_one_process, simulated


def rows_of(text: str) -> dict[str, str]:
    """The lines of a text by what stands before them."""
    return dict(re.split("  +", line.strip(), maxsplit=1) for line in text.splitlines())


def planned(cfg: RunConfig) -> dict[str, str]:
    return rows_of(plan_text(*open_job(cfg)))


def done(cfg: RunConfig) -> dict[str, str]:
    summary = in_one_process(cfg)
    return rows_of(summary_text(summary.job, summary, 1.0))


def source(folder: Path, texts: list[Any], first_id: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    write_jsonl(folder / "a.jsonl", [{"id": first_id + n, "text": text, "lang": "xx"} for n, text in enumerate(texts)])


def test_a_plan_and_a_summary_say_what_changed_and_what_needs_no_engine(tmp_path: Path, qwen: str) -> None:
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    source(tmp_path / "in", ["one", "two", "three", "", "two"])
    plan = planned(cfg)
    assert plan["parent"] == "none: this is the first run of its line"
    assert plan["changes"] == "documents: 4 added, 0 changed, 0 deleted"
    assert plan["no engine"] == "documents: 1 have the text of another one and share its vector"
    assert plan["rejects"] == "1 row is no document (1 empty_text)"
    assert plan["to do"] == "embed 3 documents, in 1 shard"
    first = done(cfg)
    assert (first["changes"], first["dataset"]) == (plan["changes"], "snapshot 1: 4 documents, which is current")
    assert first["rejected"].startswith("1 row of the source, with reasons in ")
    assert planned(cfg)["to do"] == "nothing is left to do"
    assert done(cfg)["dataset"] == "snapshot 1: 4 documents, as before"
    source(tmp_path / "in", ["two", "four"], first_id=1)
    second = planned(cfg)
    assert second["parent"] == "snapshot 1: 4 documents"
    assert (second["changes"], second["to do"]) == ("documents: 0 added, 1 changed, 2 deleted", "embed 1 document, in 1 shard")
    assert second["rewritten"] == "1 file, whose documents are not the same any more"
    last = done(cfg)
    assert (last["changes"], last["dataset"]) == (second["changes"], "snapshot 2: 2 documents, which is current")
    assert "rejected" not in last
    (tmp_path / "in" / "a.jsonl").rename(tmp_path / "in" / "b.jsonl")
    moved = done(cfg)
    assert (moved["changes"], moved["dataset"]) == (
        "no document is added, changed or deleted",
        "snapshot 3: 2 documents, which is current",
    )


def test_a_plan_counts_the_rejects_of_new_objects_by_reason(tmp_path: Path, qwen: str) -> None:
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    source(tmp_path / "in", ["one", "", " ", 7, None])
    assert planned(cfg)["rejects"] == "4 rows are no document (2 empty_text, 1 not_text, 1 null_text)"
    assert planned(cfg.model_copy(update={"limit": 2}))["rejects"] == "1 row is no document (1 empty_text)"
    done(cfg)
    write_jsonl(tmp_path / "in" / "b.jsonl", [{"id": 9, "text": "nine"}, {"id": 10}])
    assert planned(cfg)["rejects"] == "5 rows are no document in new objects (1 null_text)"


def test_what_readers_do_not_get_says_how_they_would(tmp_path: Path, qwen: str) -> None:
    source(tmp_path / "in", ["one", "two", "three"])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    trial = done(cfg.model_copy(update={"limit": 2}))
    assert trial["dataset"] == "snapshot 2: 2 documents, a trial of 2 rows, not current"
    other = done(simulated(tmp_path / "in", tmp_path / "out", qwen, prompt="x: "))
    assert other["dataset"] == "snapshot 3: 3 documents, not current"
    assert other["current"] == f"snapshot 1; `bulkembed publish --output {tmp_path}/out --snapshot 3` switches readers over"
    assert other["files"] == f"1, listed by `bulkembed files --output {tmp_path}/out --snapshot 3`"


def test_rejects_of_the_source_and_of_embedding_lie_in_two_folders_where_int8_ranges_are_measured(tmp_path: Path, qwen: str) -> None:
    source(tmp_path / "in", ["one", "", " ".join(["long"] * 200)])
    said = done(simulated(tmp_path / "in", tmp_path / "out", qwen, vectors="64:int8", long_documents="reject"))["rejected"]
    assert said.startswith("2 rows of the source, with reasons in ")
    folders = re.findall(r"\S+/_meta/rejects/\w+", said)
    assert len(folders) == 2
    assert all(len(list(Path(folder).glob("*.parquet"))) == 1 for folder in folders)


def test_the_plan_of_a_large_source_is_told_again_once_it_is_exact(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "MAX_BYTES_HERE", 0)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    source(tmp_path / "in", ["one", "two", "", "two"])
    planned_once = api.plan(cfg)
    assert (planned_once.is_exact, planned_once.rows_pending, planned_once.night) == (False, 4, NightCounts())
    assert rows_of(str(planned_once))["to do"] == "embed at most 4 rows, in 1 shard"
    assert not (tmp_path / "out").exists()
    told: list[api.Plan] = []
    executor = LocalExecutor(SimulatedEmbedder(64, 1e9))
    finish(*open_job(cfg), lambda progress: None, executor, lambda job, plan: told.append(api.Plan(job, plan))).require_complete()
    assert [(plan.is_exact, plan.rows_pending, plan.night.duplicates) for plan in told] == [(True, 2, 1)]
