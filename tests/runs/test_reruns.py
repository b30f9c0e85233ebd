"""Runs on what is there already: nothing to do, damage, rejects, erased ids, another run that publishes meanwhile."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.heads import rollback
from bulkembed.dataset.snapshots import Snapshot, newest_dataset, snapshots
from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.errors import HeldBack, IncompleteError, StorageError
from bulkembed.inspection.status import status_of
from bulkembed.records import Failure, LostAttempt, Receipt
from bulkembed.runs import buckets, lookup, night, plans
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.forget import IdFile, forget, remember
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish, run
from bulkembed.shards import Shard
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.nights import CountingEmbedder, complete_run, sorted_rows
from tests.support.runs import in_one_process, problems, read_dataset, simulated

STORE = Store()


def corpus(count: int) -> list[dict[str, Any]]:
    return [{"id": number, "text": f"text {number}", "lang": "en"} for number in range(count)]


@pytest.fixture
def cfg(tmp_path: Path, qwen: str) -> RunConfig:
    """A source of 40 documents in two files, and an output that does not exist."""
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in/a.jsonl", corpus(40)[:20])
    write_jsonl(tmp_path / "in/b.jsonl", corpus(40)[20:])
    return simulated(tmp_path / "in", tmp_path / "out", qwen)


def ids(cfg: RunConfig) -> list[Any]:
    return sorted(read_dataset(cfg.output)["id"].to_pylist())


def current(cfg: RunConfig) -> Snapshot:
    return newest_dataset(STORE, cfg.output)[1]


def files_below(folder: str) -> dict[str, int]:
    """When each file was written."""
    return {str(path): path.stat().st_mtime_ns for path in Path(folder).rglob("*") if path.is_file()}


def spoil(path: Path) -> None:
    """Makes a file unreadable. A listing shows no difference."""
    before = path.stat()
    path.write_bytes(b"\0" * before.st_size)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_the_same_source_again_does_nothing_and_reads_no_data(cfg: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    first = in_one_process(cfg).snapshot
    for folder in (f"{cfg.output}/data", f"{cfg.output}/_meta/keys"):
        for path in Path(folder).rglob("*.*"):
            spoil(path)
    opened: list[str] = []
    monkeypatch.setattr(Store, "of_source", lambda store: NoReading(opened))
    files = files_below(cfg.output)
    summary, count = complete_run(cfg)
    assert (summary.snapshot, summary.plan.is_still, count) == (first, True, 0)
    assert files_below(cfg.output) == files
    assert opened == []


class NoReading(Store):
    """Notes what is opened."""

    def __init__(self, opened: list[str]) -> None:
        super().__init__()
        self.opened = opened

    def open(self, uri: str, expected_version: str | None = None) -> BinaryIO:
        self.opened.append(uri)
        return super().open(uri, expected_version)

    def open_stream(self, uri: str, expected_version: str | None = None, expected_bytes: int = 0) -> io.BufferedReader:
        self.opened.append(uri)
        return super().open_stream(uri, expected_version, expected_bytes)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [Path.unlink, truncate])
def test_a_data_file_that_is_missing_or_cut_off_is_made_again(cfg: RunConfig, damage: Callable[[Path], None]) -> None:
    in_one_process(cfg)
    before = sorted_rows(read_dataset(cfg.output))
    path = sorted(Path(cfg.output, "data").rglob("*.parquet"))[1]
    others = {name: written for name, written in files_below(f"{cfg.output}/data").items() if name != str(path)}
    damage(path)
    summary, count = complete_run(cfg)
    assert count == 20
    assert summary.night.deleted == 0
    assert sorted_rows(read_dataset(cfg.output)).equals(before)
    assert files_below(f"{cfg.output}/data").items() >= others.items()
    assert problems(cfg.output) == []
    assert complete_run(cfg)[0].plan.is_still


def test_a_run_key_makes_a_repeat_do_nothing(cfg: RunConfig) -> None:
    tonight = cfg.model_copy(update={"run_key": "2026-11-26"})
    first = in_one_process(tonight).snapshot
    assert first is not None and first.run_key == "2026-11-26"
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": 99, "text": "new", "lang": "en"}])
    files = files_below(cfg.output)
    summary, count = complete_run(tonight)
    assert (summary.snapshot, count, files_below(cfg.output)) == (first, 0, files)
    assert complete_run(cfg.model_copy(update={"run_key": "2026-11-27"}))[1] == 1
    assert complete_run(tonight)[0].snapshot == first, "however old the key is"
    assert current(cfg).number == 2


def test_a_run_key_is_marked_also_where_nothing_changed(cfg: RunConfig) -> None:
    first = in_one_process(cfg).snapshot
    tonight = cfg.model_copy(update={"run_key": "2026-11-26"})
    assert complete_run(tonight)[0].snapshot == first
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": 99, "text": "new", "lang": "en"}])
    assert complete_run(tonight)[0].snapshot == first


class Sick(CountingEmbedder):
    """Gives no usable vector for some documents."""

    def __init__(self, *poison: bytes) -> None:
        super().__init__()
        self.poison = poison

    def embed(self, documents: TokenIds) -> Vectors:
        vectors = super().embed(documents)
        vectors[[ids.tobytes() in self.poison for ids in documents]] = float("nan")
        return vectors


def test_rejects_of_the_engine_are_remembered_by_content_until_they_are_tried_again(cfg: RunConfig) -> None:
    poison = open_job(cfg)[0].tokenizer.encode(["text 7"]).of(0).astype("int32").tobytes()
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": 77, "text": "text 7", "lang": "en"}])
    sick = Sick(poison)
    summary = run(cfg, lambda progress: None, LocalExecutor(sick))
    assert sick.seen.count(poison) == len(sick.seen) - 39 == 2, "a bad vector is asked for once more, and its twin not at all"
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (39, 2), "its twin is rejected with it"
    rows = [*corpus(40), {"id": 77, "text": "text 7", "lang": "de"}]  # the reject has another kept column
    for name in ("a", "b", "c"):
        Path(cfg.source_text, f"{name}.jsonl").unlink()
    write_jsonl(Path(cfg.source_text, "x.jsonl"), [*rows[::-1], {"id": 99, "text": "new", "lang": "en"}])
    again, count = complete_run(cfg)
    assert count == 1, "only the new text is tried"
    assert again.snapshot is not None
    assert (again.snapshot.documents, again.snapshot.rejects) == (40, 2)
    healthy = CountingEmbedder()
    retried = finish(*open_job(cfg, {"bad_vector"}), lambda progress: None, LocalExecutor(healthy))  # as `retry-rejects` does
    assert healthy.seen == [poison]
    assert retried.snapshot is not None
    assert (retried.snapshot.documents, retried.snapshot.rejects) == (42, 0)
    assert {7, 77} <= set(ids(cfg))
    assert problems(cfg.output) == []


def test_rejects_of_an_aborted_run_are_remembered(cfg: RunConfig) -> None:
    poison = open_job(cfg)[0].tokenizer.encode(["text 7"]).of(0).astype("int32").tobytes()

    def die() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(cfg, lambda progress: None, Meanwhile(die, Sick(poison)))
    assert snapshots(STORE, cfg.output) == []
    Path(cfg.source_text, "b.jsonl").rename(Path(cfg.source_text, "c.jsonl"))
    summary, count = complete_run(cfg)
    assert (count, summary.night.remembered) == (0, 1)
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (39, 1)


def id_file(*erased: int) -> IdFile:
    return IdFile("ids.txt", "\n".join(map(str, erased)).encode(), "id")


def test_erased_ids_come_back_only_where_that_is_taken_back(cfg: RunConfig) -> None:
    in_one_process(cfg)
    forget(STORE, cfg.output, id_file(3, 25))
    rest = [number for number in range(40) if number not in (3, 25)]
    assert complete_run(cfg)[1] == 0
    assert ids(cfg) == rest
    for path in Path(cfg.source_text).iterdir():
        path.unlink()
    write_jsonl(Path(cfg.source_text, "x.jsonl"), [*corpus(40)[::-1], {"id": 3, "text": "new", "lang": "en"}])
    summary, count = complete_run(cfg)
    assert count == 0, "no text of an erased id goes to the engine"
    assert (ids(cfg), current(cfg).forgotten) == (rest, 3)
    assert summary.night.deleted == 0
    remember(STORE, cfg.output, id_file(3))
    complete_run(cfg)
    assert ids(cfg) == sorted([*rest, 3, 3])
    assert current(cfg).forgotten == 1
    assert problems(cfg.output) == []


class Meanwhile(LocalExecutor):
    """Does something else on the same output once all shards are embedded."""

    def __init__(self, act: Callable[[], object], embedder: CountingEmbedder | None = None) -> None:
        self.act, self.counting = act, embedder or CountingEmbedder()
        super().__init__(self.counting)

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        yield from super().run(shards, job)
        act, self.act = self.act, lambda: None
        act()


@pytest.mark.parametrize("source", ["in", "in/a.jsonl"])
def test_the_difference_is_taken_again_where_another_run_publishes_first(cfg: RunConfig, tmp_path: Path, source: str) -> None:
    other = cfg.model_copy(update={"source": str(tmp_path / source)})
    meanwhile = Meanwhile(lambda: in_one_process(other).require_complete())
    run(cfg, lambda progress: None, meanwhile).require_complete()
    assert len(meanwhile.counting.seen) == 40, "the vectors that it has made itself are used"
    assert [item.number for item in snapshots(STORE, cfg.output)] == ([1] if source == "in" else [1, 2])
    assert ids(cfg) == list(range(40))
    assert problems(cfg.output) == []


def test_ids_that_are_erased_during_a_run_are_not_published(cfg: RunConfig) -> None:
    in_one_process(cfg)
    rows = [row | {"text": f"other {row['id']}"} if row["id"] < 25 else row for row in corpus(40)]
    write_jsonl(Path(cfg.source_text, "b.jsonl"), rows[20:])
    write_jsonl(Path(cfg.source_text, "a.jsonl"), rows[:20])
    run(cfg, lambda progress: None, Meanwhile(lambda: forget(STORE, cfg.output, id_file(3, 30)))).require_complete()
    assert ids(cfg) == [number for number in range(40) if number not in (3, 30)]
    assert current(cfg).forgotten == 2
    assert problems(cfg.output) == []


def test_an_id_that_is_erased_on_the_night_it_comes_is_not_published(cfg: RunConfig) -> None:
    in_one_process(cfg)
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": number, "text": f"new {number}", "lang": "en"} for number in (98, 99)])
    run(cfg, lambda progress: None, Meanwhile(lambda: forget(STORE, cfg.output, id_file(99)))).require_complete()
    assert ids(cfg) == [*range(40), 98]
    assert (current(cfg).forgotten, current(cfg).erasure) == (1, 1)


class Before(Meanwhile):
    """Does something else on the same output before its own shards."""

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        act, self.act = self.act, lambda: None
        act()
        yield from super().run(shards, job)


def test_what_another_run_has_embedded_and_published_first_is_in_the_dataset_once(cfg: RunConfig) -> None:
    in_one_process(cfg)
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": number, "text": f"new {number}", "lang": "en"} for number in range(100, 130)])
    other = cfg.model_copy(update={"shards": cfg.shards.model_copy(update={"max_rows": 7})})  # its files have other names
    run(cfg, lambda progress: None, Before(lambda: in_one_process(other).require_complete())).require_complete()
    assert ids(cfg) == [*range(40), *range(100, 130)]
    assert problems(cfg.output) == []


def test_a_run_embeds_what_it_needs_after_a_rollback_meanwhile(cfg: RunConfig) -> None:
    in_one_process(cfg)
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": number, "text": f"new {number}", "lang": "en"} for number in range(100, 110)])
    in_one_process(cfg).require_complete()
    write_jsonl(Path(cfg.source_text, "d.jsonl"), [{"id": number, "text": f"newer {number}", "lang": "en"} for number in range(120, 130)])
    run(cfg, lambda progress: None, Before(lambda: rollback(STORE, cfg.output, 1))).require_complete()
    assert ids(cfg) == [*range(40), *range(100, 110), *range(120, 130)]
    assert [item.parent for item in snapshots(STORE, cfg.output)] == [0, 1, 2, 3]
    assert problems(cfg.output) == []


def test_lost_keys_of_an_object_that_went_are_made_up_for_by_the_data_files(cfg: RunConfig) -> None:
    in_one_process(cfg)
    (keys,) = Path(cfg.output, "_meta/keys").rglob("b.jsonl-*.parquet")
    keys.write_bytes(b"no keys")
    Path(cfg.source_text, "b.jsonl").rename(Path(cfg.source_text, "c.jsonl"))
    with pytest.raises(StorageError, match=r"keys/.*b\.jsonl.*damaged.*; delete it, and the next run does without it"):
        in_one_process(cfg)
    keys.unlink()
    summary, count = complete_run(cfg)
    assert (count, summary.night.added, summary.night.changed, summary.night.deleted) == (0, 0, 0, 0)
    assert summary.snapshot is not None and summary.snapshot.number == 2
    (keys,) = Path(cfg.output, "_meta/keys").rglob("c.jsonl-*.parquet")
    keys.unlink()
    Path(cfg.source_text, "c.jsonl").unlink()
    with pytest.raises(HeldBack, match="20 of 40 documents of snapshot 2 would leave"):
        in_one_process(cfg)
    in_one_process(cfg.model_copy(update={"allow_deletes": 20})).require_complete()
    assert ids(cfg) == list(range(20))
    assert problems(cfg.output) == []


def test_what_can_be_read_is_embedded_beside_an_object_that_cannot(cfg: RunConfig) -> None:
    in_one_process(cfg)
    Path(cfg.source_text, "b.jsonl").unlink()
    Path(cfg.source_text, "b.parquet").write_bytes(b"no parquet at all")
    write_jsonl(Path(cfg.source_text, "c.jsonl"), [{"id": 99, "text": "new", "lang": "en"}])
    summary = in_one_process(cfg)
    assert (summary.snapshot, summary.progress.counts.documents) == (None, 1)
    with pytest.raises(IncompleteError, match=r"1 failed: .*in/b\.parquet") as incomplete:
        summary.require_complete()
    assert incomplete.value.exit_code == 1
    assert current(cfg).number == 1
    Path(cfg.source_text, "b.parquet").unlink()
    write_jsonl(Path(cfg.source_text, "b.jsonl"), corpus(40)[20:])
    assert complete_run(cfg)[1] == 0, "the vector of that run is used"
    assert ids(cfg) == [*range(40), 99]


def test_status_says_what_the_newest_snapshot_holds_not_what_was_ever_published(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in", files=2)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg).require_complete()
    write_jsonl(tmp_path / "in" / "part-1.jsonl", [*rows[50:99], rows[99] | {"text": ""}])
    in_one_process(cfg).require_complete()
    (status,) = status_of(Store(), str(tmp_path / "out"))
    assert (status.counts.documents, status.counts.rejects, status.is_current) == (99, 1, True)
    assert status.counts.tokens == sum(read_dataset(tmp_path / "out")["n_tokens"].to_pylist())


def test_status_shows_what_readers_get_after_a_trial(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg).require_complete()
    in_one_process(cfg.model_copy(update={"limit": 3})).require_complete()
    (status,) = status_of(Store(), str(tmp_path / "out"))
    assert (status.counts.documents, status.is_current) == (100, True)


def test_status_does_not_show_the_record_of_a_line_with_int8_ranges_as_a_run(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, vectors=["64:int8"])
    snapshot = complete_run(cfg)[0].snapshot
    assert snapshot is not None and snapshot.line != snapshot.fingerprint
    assert [status.fingerprint for status in status_of(Store(), str(tmp_path / "out"))] == [snapshot.fingerprint]


def test_an_error_while_planning_leaves_nothing_in_the_exchange(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in", files=2)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    monkeypatch.setattr(lookup, "MAX_BYTES_HERE", -1)
    monkeypatch.setattr(buckets, "ROWS_HERE", 20)
    monkeypatch.setattr(buckets, "PARTITION_ROWS", 20)

    def broken(*_: object) -> None:
        assert list((tmp_path / "out/_meta/exchange").rglob("*.arrow"))
        raise StorageError("planted")

    with monkeypatch.context() as patched, pytest.raises(StorageError, match="planted"):
        patched.setattr(night, "night_match", broken)
        in_one_process(cfg)
    assert not list((tmp_path / "out/_meta/exchange").rglob("*.arrow"))
    in_one_process(cfg).require_complete()


def test_a_plan_of_more_keys_than_this_process_may_hold_is_an_upper_bound(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    monkeypatch.setattr(buckets, "ROWS_HERE", 60)
    job, plan = open_job(cfg)
    assert plan.night is None
    assert 0 < sum(len(scan.keys) for scan in plan.versions.held.values()) < len(rows), "it stops reading"
    assert sum(shard.rows for shard in plans.with_layouts(job, plan).pending) == len(rows)
    complete_run(cfg)
    write_jsonl(tmp_path / "in" / "part-1.jsonl", [*rows[50:99], rows[99] | {"text": "new"}])
    assert open_job(cfg)[1].night is None, "50 keys came and 50 went"
    assert complete_run(cfg)[0].night.embedded == 1
    assert problems(tmp_path / "out") == []
