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
from bulkembed.records import Failure, LostAttempt, Receipt
from bulkembed.report.run_text import plan_text
from bulkembed.runs import guards, stages
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.guards import Contents
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish, run
from bulkembed.shards import Shard
from bulkembed.source.objects import object_id
from bulkembed.storage.store import Store
from bulkembed.storage.uris import absolute
from tests.support.corpora import write_jsonl, write_small_corpus
from tests.support.processes import bulkembed
from tests.support.runs import in_one_process, read_dataset, simulated
from tests.support.snapshots import some_snapshot

NAMES = st.dictionaries(st.sampled_from("abcdef"), st.integers(1, 40), min_size=1)


def shards(rows: dict[str, int], version: str = "v") -> list[str]:
    return [f"{object_id(name, version)}-{0:010d}-{count:010d}-of-{count:010d}" for name, count in rows.items()]


def snapshot(rows: dict[str, int], documents: int | None = None) -> Snapshot:
    return some_snapshot(number=7, source="in", documents=sum(rows.values()) if documents is None else documents)


def held(before: dict[str, int], after: dict[str, int], source: str = "in", documents: int | None = None, **changes: Any) -> str | None:
    cfg = RunConfig.model_validate({"source": source, "output": "out", "model": "m"} | changes)
    return guards.held_back(snapshot(before), shards(before), Contents(source, shards(after, "w"), documents), cfg)


@pytest.mark.parametrize(
    ("before", "after", "changes", "message"),
    [
        ({"a": 100}, {"a": 90}, {}, None),
        ({"a": 100}, {"a": 89}, {}, "11 of 100 rows of snapshot 7 .* has shrunk by more than max_deletes .0.1.; --allow-deletes 11 "),
        ({"a": 1000}, {"a": 900}, {}, None),
        ({"a": 1000}, {"a": 899}, {}, "101 of 1,000 rows"),
        ({"a": 11}, {"a": 1}, {}, None),  # ten rows may always go
        ({"a": 12}, {"a": 1}, {}, "11 of 12"),
        ({"a": 60, "b": 60}, {"c": 30, "d": 90}, {}, None),  # cut into other files
        ({"a": 100}, {"a": 89}, {"max_deletes": 0.2}, None),
        ({"a": 1000}, {"a": 995}, {"max_deletes": 5}, None),
        ({"a": 1000}, {"a": 994}, {"max_deletes": 5}, "6 of 1,000"),
        ({"a": 1000}, {"a": 999}, {"max_deletes": 0}, "1 of 1,000"),
        ({"a": 100}, {"a": 50}, {"allow_deletes": 50}, None),
        ({"a": 100}, {"a": 50}, {"allow_deletes": 49}, "more than --allow-deletes 49; --allow-deletes 50 "),
        ({"a": 100}, {"a": 99}, {"allow_deletes": 0}, "1 of 100"),
        ({"a": 50}, {"a": 3}, {"limit": 3}, None),  # a trial, which takes the place of no dataset
        ({"a": 50, "b": 50}, {"a": 50, "b": 50}, {"source": "moved"}, None),
        ({"a": 50, "b": 50}, {"a": 50, "b": 49}, {"source": "moved"}, "1 of 100 rows .* made from in, this run is from moved"),
        ({"a": 50, "b": 50}, {"c": 500}, {"source": "other"}, "100 of 100"),
        ({"a": 5}, {"b": 5}, {"source": "other"}, "5 of 5"),
        ({"a": 50, "b": 50}, {"b": 50, "c": 500}, {"source": "other", "allow_deletes": 50}, None),
        ({"a": 100}, {"a": 100}, {"documents": 90}, None),
        ({"a": 100}, {"a": 100}, {"documents": 80}, "20 of 100 documents .* no longer embedded"),
        ({"a": 100}, {"a": 100}, {"documents": 80, "allow_deletes": 20}, None),
    ],
)
def test_rules(before: dict[str, int], after: dict[str, int], changes: dict[str, Any], message: str | None) -> None:
    found = held(before, after, **changes)
    assert (found is None) == (message is None), found
    assert message is None or re.search(message, str(found)), found


@given(NAMES, NAMES, st.sampled_from(["in", "other"]), st.integers(0, 300) | st.none())
def test_the_advice_is_enough_and_not_more(before: dict[str, int], after: dict[str, int], source: str, documents: int | None) -> None:
    found = held(before, after, source, documents)
    if found is None:
        return
    assert "\n" not in found
    needed = int(re.findall(r"--allow-deletes (\d+)", found)[-1])
    assert held(before, after, source, documents, allow_deletes=needed) is None
    assert held(before, after, source, documents, allow_deletes=needed - 1) is not None


@given(NAMES, NAMES, st.sampled_from(["in", "other"]))
def test_what_only_grows_is_never_held_back(before: dict[str, int], more: dict[str, int], source: str) -> None:
    grown = {name: before.get(name, 0) + more.get(name, 0) for name in before | more}
    assert held(before, grown, source, sum(grown.values()), max_deletes=0) is None


@pytest.mark.parametrize("first", ["in", "./in", "{}/in", "{}/in/", "file://{}/in", "file:in", "local://{}/in"])
def test_spellings_of_one_source_are_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, first: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert absolute(first.format(tmp_path)) == f"{tmp_path}/in"
    assert absolute("s3://b/in/") == "s3://b/in"
    assert absolute("in/a*.jsonl") != absolute("in/b*.jsonl")


def number_of_snapshots(tmp_path: Path) -> int:
    return len(snapshots(Store(), str(tmp_path / "out")))


def test_a_trial_with_a_limit_does_not_replace_the_dataset(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    trial = cfg.model_copy(update={"limit": 3})
    for limit, number in ((3, 2), (3, 2), (2, 3)):
        made = in_one_process(trial.model_copy(update={"limit": limit})).snapshot
        assert made is not None
        assert (made.number, made.limit, made.documents) == (number, limit, limit)
        assert newest_dataset(Store(), str(tmp_path / "out"))[1].number == 1
    assert in_one_process(cfg).plan.pending == []
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == list(range(20))


def test_a_whole_run_takes_the_place_of_a_trial(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg.model_copy(update={"limit": 3}))
    assert read_dataset(tmp_path / "out").num_rows == 3
    in_one_process(cfg)
    assert read_dataset(tmp_path / "out").num_rows == 20


def test_another_source_does_not_replace_the_dataset(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    write_small_corpus(tmp_path / "half", files=2)
    write_small_corpus(tmp_path / "moved")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    for source in ("half", "in/0.jsonl", "in/[0-2].jsonl"):
        with pytest.raises(HeldBack, match=f"made from {tmp_path}/in, this run is from "):
            in_one_process(simulated(tmp_path / source, tmp_path / "out", qwen))
    assert number_of_snapshots(tmp_path) == 1
    in_one_process(simulated(tmp_path / "moved", tmp_path / "out", qwen)).require_complete()
    assert newest_dataset(Store(), str(tmp_path / "out"))[1].source == f"{tmp_path}/moved"


@pytest.mark.parametrize("files", [1, 2, 3])
def test_a_source_that_shrinks_does_not_replace_the_dataset(tmp_path: Path, qwen: str, files: int) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    for number in range(files):
        (tmp_path / "in" / f"{number}.jsonl").unlink()
    with pytest.raises(HeldBack, match=f"{20 * files} of 80 rows of snapshot 1 would leave the dataset: the source has shrunk"):
        in_one_process(cfg)
    in_one_process(cfg.model_copy(update={"allow_deletes": 20 * files})).require_complete()
    assert read_dataset(tmp_path / "out").num_rows == 80 - 20 * files


def test_another_line_is_published_and_does_not_become_current(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, dims=[32])).require_complete()
    assert number_of_snapshots(tmp_path) == 2
    assert newest_dataset(Store(), str(tmp_path / "out"))[1].number == 1


def test_a_source_without_rows_publishes_nothing(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, allow_deletes=100)
    in_one_process(cfg)
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(b"\n")
    with pytest.raises(SourceError, match="its objects hold no rows"):
        in_one_process(cfg)
    for path in (tmp_path / "in").iterdir():
        path.unlink()
    with pytest.raises(SourceError, match="nothing there"):
        in_one_process(cfg)
    assert number_of_snapshots(tmp_path) == 1


def test_unreadable_objects_are_named_and_publish_nothing(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    (tmp_path / "in" / "1.jsonl").rename(tmp_path / "in" / "1.parquet")
    with pytest.raises(IncompleteError, match=r"1\.parquet"):
        in_one_process(cfg).require_complete()
    assert number_of_snapshots(tmp_path) == 1


def test_a_run_that_was_planned_before_the_dataset_grew_is_held_back_at_the_end(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    job, plan = open_job(simulated(tmp_path / "in/0.jsonl", tmp_path / "out", qwen))
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    with pytest.raises(HeldBack, match="nothing was published: 15 of 20 rows of snapshot 1"):
        finish(job, plan, lambda progress: None, LocalExecutor(SimulatedEmbedder(64, 1e9)))
    assert number_of_snapshots(tmp_path) == 1


def test_documents_that_become_rejects_are_counted(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    strict = simulated(tmp_path / "in", tmp_path / "out", qwen, max_tokens=16, long_documents="reject")
    for words in (1, 40):
        write_jsonl(tmp_path / "in/a.jsonl", [{"id": n, "text": "long " * (words if n < 15 else 1), "lang": "x"} for n in range(60)])
        if words == 1:
            in_one_process(strict)
    for what in ("published", "embedded or published"):
        with pytest.raises(HeldBack, match=rf"nothing was {what}: 15 of 60 documents .* no longer embedded.*--allow-deletes 15 lets"):
            in_one_process(strict)
    assert number_of_snapshots(tmp_path) == 1
    in_one_process(strict.model_copy(update={"allow_deletes": 15})).require_complete()
    assert read_dataset(tmp_path / "out").num_rows == 45


class Counting(LocalExecutor):
    """Notes how many shards it was asked for, and does at most `most` of them, as a killed run does."""

    def __init__(self, most: int = 1000) -> None:
        super().__init__(SimulatedEmbedder(64, 1e9))
        self.most, self.asked = most, 0

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        for outcome in super().run(shards[: self.most], job):
            self.asked += 1
            yield outcome


@pytest.mark.parametrize("max_rejects", [0.2, 20, 0])
def test_max_rejects_holds_on_the_second_try(tmp_path: Path, qwen: str, max_rejects: float) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", [{"id": n, "text": "word" if n % 4 else "", "lang": "x"} for n in range(100)])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_rejects=max_rejects, shards={"max_rows": 50})
    for _ in range(3):
        with pytest.raises(IncompleteError, match=r"max_rejects: \d+ of \d+ rows were rejected, more than it allows; "):
            in_one_process(cfg)
    again = Counting()
    with pytest.raises(IncompleteError, match="25 of 100 rows" if max_rejects else "13 of 50 rows"):
        run(cfg, lambda progress: None, again)
    assert again.asked == 0
    assert re.search(r"max_rejects  \d+ of \d+ rows were rejected, more than .*: a run ends at once", plan_text(*open_job(cfg)))
    assert number_of_snapshots(tmp_path) == 0
    in_one_process(cfg.model_copy(update={"max_rejects": 0.25})).require_complete()


def test_a_share_of_rejects_is_one_of_all_that_is_done(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guards, "REJECTS_AFTER", 60)
    write_small_corpus(tmp_path / "in", files=1, rows=200)
    write_jsonl(tmp_path / "in/0.jsonl", [{"id": n, "text": "word" if n % 4 else "", "lang": "x"} for n in range(200)])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_rejects=0.2)
    assert run(cfg, lambda progress: None, Counting(2)).snapshot is None
    executor = Counting()
    with pytest.raises(IncompleteError, match="15 of 60 rows"):
        run(cfg, lambda progress: None, executor)
    assert executor.asked == 1


def test_rejects_that_are_embedded_after_a_fix_no_longer_count(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=20)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_rejects=3, max_tokens=16)
    broken = cfg.model_copy(update={"max_rejects": None})
    job, plan = open_job(broken)
    finish(job, plan, lambda progress: None, Counting(2))
    for receipt in list(job.ledger.read_receipts(job.ledger.done())):
        job.ledger.write_receipt(Receipt.from_dict(receipt.to_dict() | {"documents": 18, "rejects": 2}))
    with pytest.raises(IncompleteError, match="4 of 40 rows"):
        in_one_process(cfg)
    job.ledger.forget(job.ledger.done()[0])
    in_one_process(cfg).require_complete()


def test_retry_rejects_takes_back_no_receipt_of_a_run_that_is_held_back(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    write_jsonl(tmp_path / "in/0.jsonl", [{"id": 1, "text": ""}, {"id": 2, "text": "fine"}])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    receipts = sorted(tmp_path.glob("out/_meta/receipts/*/*"))
    flags = ["--source", f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--model", qwen, "--max-tokens", "64"]
    for number in (1, 2, 3):
        (tmp_path / "in" / f"{number}.jsonl").unlink()
    with pytest.raises(HeldBack):
        app(["retry-rejects", *flags, "--set", "engine.kind=simulated"], standalone_mode=False)
    assert sorted(tmp_path.glob("out/_meta/receipts/*/*")) == receipts


def test_retry_rejects_mends_a_run_that_its_rejects_hold_back(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[])
    in_one_process(cfg)
    write_small_corpus(tmp_path / "in", rows=6)
    with monkeypatch.context() as broken:
        broken.setattr(stages, "run_shard", lambda shard, job, *_: stages.give_up(shard, job, "planted"))
        for _ in range(2):
            with pytest.raises(HeldBack, match=r"20 of 20 documents .* the rejects say why, and retry-rejects embeds them after a fix"):
                in_one_process(cfg)
    monkeypatch.setattr("bulkembed.cli.run_commands.embed", in_one_process)
    flags = ["--source", f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--model", qwen, "--max-tokens", "64"]
    app(["retry-rejects", *flags, "--set", "engine.kind=simulated"], standalone_mode=False)
    assert read_dataset(tmp_path / "out").num_rows == 24


def test_held_back_is_one_line_and_exit_code_3(tmp_path: Path, qwen: str, capsys: pytest.CaptureFixture[str]) -> None:
    write_small_corpus(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    for number in (1, 2, 3):
        (tmp_path / "in" / f"{number}.jsonl").unlink()
    flags = ["--source", f"{tmp_path}/in", "--output", f"{tmp_path}/out", "--model", qwen, "--max-tokens", "64"]
    flags += ["--set", "engine.kind=simulated"]
    result = bulkembed("run", *flags)
    assert result.returncode == 3
    assert result.stderr.count("\n") == 1
    assert result.stderr.startswith("bulkembed: held back: nothing was embedded or published: 15 of 20 rows of snapshot 1 ")
    app(["plan", *flags], standalone_mode=False)
    assert "held back    15 of 20 rows" in capsys.readouterr().out
    app(["plan", *flags, "--allow-deletes", "15"], standalone_mode=False)
    assert "held back" not in capsys.readouterr().out


@pytest.mark.parametrize("values", [{"max_deletes": -1}, {"max_deletes": float("nan")}, {"allow_deletes": -1}, {"allow_deletes": 0.5}])
def test_what_is_no_bound_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(values))):
        load(None, {"source": "in", "output": "out", "model": "m"} | values)
