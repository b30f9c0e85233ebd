"""What is held back, and what is not: the rules alone, whole runs, the command line."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cli.app import app
from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import load
from bulkembed.dataset.snapshots import Snapshot, newest_dataset, snapshots
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import ConfigError, HeldBack, IncompleteError, SourceError
from bulkembed.records import Counts, Failure, LostAttempt, Receipt
from bulkembed.report.run_text import plan_text
from bulkembed.runs import guards, stages
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import run
from bulkembed.shards import Shard
from bulkembed.storage.store import Store
from bulkembed.storage.uris import absolute
from tests.support.corpora import write_jsonl, write_small_corpus
from tests.support.processes import bulkembed
from tests.support.runs import in_one_process, read_dataset, simulated


def config(**changes: Any) -> RunConfig:
    return RunConfig.model_validate({"source": "in", "output": "out", "model": "m"} | changes)


def snapshot(documents: int) -> Snapshot:
    return Snapshot(
        parent=0,
        line="l",
        fingerprint="f",
        sources=["in"],
        limit=None,
        run_key=None,
        provenance={},
        number=7,
        created="",
        source_identity="",
        objects=1,
        files=1,
        documents=documents,
        rows=documents,
        rejects=0,
        manifest="",
    )


@pytest.mark.parametrize(
    ("documents", "deletes", "changes", "message"),
    [
        (100, 10, {}, None),
        (100, 11, {}, "11 of 100 documents of snapshot 7 would leave the dataset, more than max_deletes .0.1.; .*--allow-deletes 11$"),
        (1000, 100, {}, None),
        (1000, 101, {}, "101 of 1,000 documents"),
        (11, 10, {}, None),  # ten may always go
        (12, 11, {}, "11 of 12"),
        (100, 20, {"max_deletes": 0.2}, None),
        (1000, 5, {"max_deletes": 5}, None),
        (1000, 6, {"max_deletes": 5}, "6 of 1,000"),
        (1000, 1, {"max_deletes": 0}, "1 of 1,000"),
        (100, 50, {"allow_deletes": 50}, None),
        (100, 50, {"allow_deletes": 49}, "more than --allow-deletes 49; .*--allow-deletes 50$"),
        (100, 1, {"allow_deletes": 0}, "1 of 100"),
        (5, 5, {"limit": 3}, None),  # a trial has a line of its own
    ],
)
def test_rules(documents: int, deletes: int, changes: dict[str, Any], message: str | None) -> None:
    found = guards.held_back(snapshot(documents), deletes, config(**changes))
    assert (found is None) == (message is None), found
    assert message is None or re.search(message, str(found)), found


@given(st.integers(0, 300), st.integers(0, 300), st.sampled_from([0, 0.05, 0.1, 3]))
def test_the_advice_is_enough_and_not_more(documents: int, deletes: int, max_deletes: float) -> None:
    found = guards.held_back(snapshot(documents), deletes, config(max_deletes=max_deletes))
    if found is None:
        return
    assert "\n" not in found
    needed = int(re.findall(r"--allow-deletes (\d+)", found)[-1])
    assert guards.held_back(snapshot(documents), deletes, config(allow_deletes=needed)) is None
    assert guards.held_back(snapshot(documents), deletes, config(allow_deletes=needed - 1)) is not None


def test_nothing_is_held_back_without_a_parent() -> None:
    assert guards.held_back(None, 10**9, config(max_deletes=0)) is None


@pytest.mark.parametrize(
    ("max_rejects", "known", "rows_tonight", "rejects_tonight", "message"),
    [
        (None, 100, 100, 100, None),
        (0, 0, 100, 0, None),
        (0, 1, 0, 0, "1 of 1,000 rows"),
        (5, 3, 10, 2, None),
        (5, 3, 10, 3, "6 of 1,000 rows"),
        (0.1, 100, 0, 0, None),
        (0.1, 100, 10, 1, "101 of 1,000 rows"),
        (0.1, 0, 20, 20, None),  # a bad first shard does not mean a broken corpus
    ],
)
def test_rules_for_rejects(max_rejects: float | None, known: int, rows_tonight: int, rejects_tonight: int, message: str | None) -> None:
    tonight = Counts(rows=rows_tonight, rejects=rejects_tonight)
    found = guards.too_many_rejects(config(max_rejects=max_rejects), known, tonight, 1000)
    assert (found is None) == (message is None), found
    assert message is None or message in str(found)


def test_an_engine_that_rejects_everything_is_noticed_early() -> None:
    cfg, many = config(max_rejects=0.5), guards.REJECTS_AFTER
    assert guards.too_many_rejects(cfg, 0, Counts(rows=many - 1, rejects=many - 1), 100 * many) is None
    assert "of the first" in str(guards.too_many_rejects(cfg, 0, Counts(rows=many, rejects=many), 100 * many))


@pytest.mark.parametrize("first", ["in", "./in", "{}/in", "{}/in/", "file://{}/in", "file:in", "local://{}/in"])
def test_spellings_of_one_source_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute(first.format(tmp_path)) == f"{tmp_path}/in"
    assert absolute("s3://b/in/") == "s3://b/in"
    assert absolute("in/a*.jsonl") != absolute("in/b*.jsonl")


def number_of_snapshots(tmp_path: Path) -> int:
    return len(snapshots(Store(), str(tmp_path / "out")))


class Counting(LocalExecutor):
    """Counts the documents that go to the engine, and stops after `max_shards` shards, as a killed run does."""

    def __init__(self, max_shards: int = 1000) -> None:
        super().__init__(SimulatedEmbedder(64, 1e9))
        self.max_shards, self.documents = max_shards, 0

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        for outcome in super().run(shards[: self.max_shards], job):
            self.documents += outcome.counts.documents if isinstance(outcome, Receipt) else 0
            yield outcome


def embedded(cfg: RunConfig) -> int:
    """Runs, and returns how many documents went to the engine."""
    executor = Counting()
    run(cfg, lambda progress: None, executor).require_complete()
    return executor.documents


def test_a_trial_with_a_limit_is_a_line_of_its_own(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    trial = cfg.model_copy(update={"limit": 3})
    assert embedded(trial) == 3
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 1, 2], "nothing else is there to read"
    assert embedded(cfg) == 17, "the whole run embeds the rest"
    assert embedded(trial.model_copy(update={"limit": 5})) == 0, "a trial takes the vectors of the whole"
    assert number_of_snapshots(tmp_path) == 3
    assert sorted(read_dataset(tmp_path / "out")["id"].to_pylist()) == list(range(20)), "readers keep the whole"


def test_a_source_that_moved_embeds_nothing_and_a_part_of_it_is_held_back(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    write_small_corpus(tmp_path / "moved", rows=20)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    for source in ("in/0.jsonl", "in/[0-2].jsonl"):
        with pytest.raises(HeldBack, match=r"nothing was embedded or published: \d+ of 80 documents of snapshot 1 would leave"):
            in_one_process(simulated(tmp_path / source, tmp_path / "out", qwen))
    assert number_of_snapshots(tmp_path) == 1
    assert embedded(simulated(tmp_path / "moved", tmp_path / "out", qwen)) == 0
    assert newest_dataset(Store(), str(tmp_path / "out"))[1].sources == [f"{tmp_path}/moved"]


@pytest.mark.parametrize("files", [1, 2, 3])
def test_a_source_that_shrinks_does_not_replace_the_dataset(tmp_path: Path, qwen: str, files: int) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    for number in range(files):
        (tmp_path / "in" / f"{number}.jsonl").unlink()
    assert f"  held back    {20 * files} of 80 documents of snapshot 1" in plan_text(*open_job(cfg))
    with pytest.raises(HeldBack, match=f"{20 * files} of 80 documents of snapshot 1 would leave the dataset"):
        in_one_process(cfg)
    in_one_process(cfg.model_copy(update={"allow_deletes": 20 * files})).require_complete()
    assert read_dataset(tmp_path / "out").num_rows == 80 - 20 * files
    write_small_corpus(tmp_path / "in", rows=20)
    (tmp_path / "in" / "3.jsonl").unlink()
    if files == 3:
        with pytest.raises(HeldBack):  # what was allowed once is not allowed again
            in_one_process(cfg)


def test_another_recipe_is_a_line_of_its_own_that_is_not_current(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, prompt="x: ")).require_complete()
    assert number_of_snapshots(tmp_path) == 2
    assert newest_dataset(Store(), str(tmp_path / "out"))[1].number == 1
    write_jsonl(tmp_path / "in" / "9.jsonl", [{"id": 99, "text": "new", "lang": "xx"}])
    assert embedded(simulated(tmp_path / "in", tmp_path / "out", qwen)) == 1
    assert newest_dataset(Store(), str(tmp_path / "out"))[1].number == 3


def test_an_empty_source_never_empties_the_dataset(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    strict = cfg.model_copy(update={"allow_deletes": 3})
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(b"\n")
    with pytest.raises(HeldBack, match="4 of 4 documents"):
        in_one_process(strict)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    with pytest.raises(HeldBack, match=r"nothing there; .*; the 4 documents of snapshot 1 stay"):
        in_one_process(cfg.model_copy(update={"allow_deletes": 100}))
    assert number_of_snapshots(tmp_path) == 1
    with pytest.raises(SourceError, match="nothing there"):
        in_one_process(simulated(tmp_path / "in", tmp_path / "fresh", qwen))


def test_a_name_that_the_source_must_have(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, require=["_SUCCESS"])
    with pytest.raises(HeldBack, match="has no _SUCCESS, which --require asks for"):
        in_one_process(cfg)
    assert not (tmp_path / "out").exists()
    (tmp_path / "in" / "_SUCCESS").touch()
    in_one_process(cfg).require_complete()


def test_unreadable_objects_are_named_and_publish_nothing_unless_that_is_asked_for(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    (tmp_path / "in" / "1.jsonl").rename(tmp_path / "in" / "1.parquet")
    write_jsonl(tmp_path / "in" / "9.jsonl", [{"id": 99, "text": "new", "lang": "xx"}])
    with pytest.raises(IncompleteError, match=r"1\.parquet"):
        in_one_process(cfg).require_complete()
    assert number_of_snapshots(tmp_path) == 1
    skipping = cfg.model_copy(update={"skip_unreadable": True})
    with pytest.raises(HeldBack, match="20 of 80"):
        in_one_process(skipping)
    summary = in_one_process(skipping.model_copy(update={"allow_deletes": 20}))
    assert summary.snapshot is not None
    assert summary.snapshot.unreadable == [f"{tmp_path}/in/1.parquet"]
    assert read_dataset(tmp_path / "out").num_rows == 61


def test_documents_that_become_rejects_are_counted(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_corpus(tmp_path / "in", rows=15)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    rows = [{"id": n, "text": f"changed {n}", "lang": "xx"} for n in range(15)]
    write_jsonl(tmp_path / "in/0.jsonl", rows)
    with monkeypatch.context() as broken:
        broken.setattr(stages, "run_shard", lambda shard, job, *_: stages.give_up(shard, job, "planted"))
        with pytest.raises(HeldBack, match=r"nothing was published: 15 of 60 documents"):
            in_one_process(cfg)
    assert number_of_snapshots(tmp_path) == 1
    with pytest.raises(HeldBack):
        in_one_process(cfg)  # the rejects are remembered
    in_one_process(cfg.model_copy(update={"allow_deletes": 15})).require_complete()
    assert read_dataset(tmp_path / "out").num_rows == 45
    summary = run(cfg, lambda progress: None, Counting())
    assert summary.snapshot is not None
    assert summary.snapshot.rejects == 15
    _, plan = open_job(cfg, {"engine_lost"})
    assert (plan.has_retries, plan.rows_pending) == (True, 15)


@pytest.mark.parametrize("max_rejects", [0.2, 20, 0])
def test_max_rejects_holds_before_anything_is_embedded(tmp_path: Path, qwen: str, max_rejects: float) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": n, "text": f"word {n}" if n % 4 else "", "lang": "x"} for n in range(100)])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_rejects=max_rejects, shards={"max_rows": 50})
    for _ in range(2):
        again = Counting()
        with pytest.raises(IncompleteError, match=r"max_rejects: 25 of 100 rows were rejected, more than it allows; "):
            run(cfg, lambda progress: None, again)
        assert again.documents == 0
    assert re.search(r"max_rejects  25 of 100 rows were rejected, more than .*: a run ends at once", plan_text(*open_job(cfg)))
    assert number_of_snapshots(tmp_path) == 0
    in_one_process(cfg.model_copy(update={"max_rejects": 0.25})).require_complete()


def test_rejects_of_the_engine_end_a_run_that_allows_fewer(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_rejects=30)
    with monkeypatch.context() as broken:
        broken.setattr(stages, "run_shard", lambda shard, job, *_: stages.give_up(shard, job, "planted"))
        with pytest.raises(IncompleteError, match="40 of 80 rows"):
            in_one_process(cfg)
    with pytest.raises(IncompleteError, match="40 of 80 rows"):
        in_one_process(cfg)  # also on the second try


def test_held_back_is_one_line_and_exit_code_3(tmp_path: Path, qwen: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    for number in (1, 2, 3):
        (tmp_path / "in" / f"{number}.jsonl").unlink()
    flags = ["--source", f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--model", qwen, "--max-tokens", "64"]
    flags += ["--set", "engine.kind=simulated"]
    result = bulkembed("run", *flags)
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("bulkembed: held back: nothing was embedded or published: 60 of 80 documents of snapshot 1 ")
    app(["plan", *flags], standalone_mode=False)
    assert "held back    60 of 80 documents" in capsys.readouterr().out
    app(["plan", *flags, "--allow-deletes", "60"], standalone_mode=False)
    assert "held back" not in capsys.readouterr().out


@pytest.mark.parametrize("values", [{"max_deletes": -1}, {"max_deletes": float("nan")}, {"allow_deletes": -1}, {"allow_deletes": 0.5}])
def test_what_is_no_bound_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        load(None, {"source": "in", "output": "out", "model": "m"} | values)


def test_a_source_without_any_document_is_held_back_and_says_why(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": ["a list"]}, {"id": 2, "text": None}])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[])
    with pytest.raises(HeldBack, match=r"none of the 2 rows of the source \S+ is a document \(1 not_text, 1 null_text\); name the columns"):
        in_one_process(cfg)
    assert not snapshots(Store(), cfg.output)
    assert in_one_process(cfg.model_copy(update={"allow_deletes": 0})).snapshot is not None


def test_a_small_dataset_does_not_lose_all_of_its_documents(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "one"}])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[])
    in_one_process(cfg)
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": ""}])
    with pytest.raises(HeldBack, match=r"none of the 1 rows .* with --allow-deletes 1$"):
        in_one_process(cfg)
    assert read_dataset(cfg.output)["id"].to_pylist() == [1]
