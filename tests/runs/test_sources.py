"""Runs over several places, with excluded names, and what their snapshots say of the source."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import bulkembed
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset, snapshots
from bulkembed.errors import ConfigError, HeldBack
from bulkembed.inspection.status import status_of
from bulkembed.report import dataset_text, run_text
from bulkembed.runs.lookup import open_job
from bulkembed.runs.overlap import refuse_overlap
from bulkembed.source.objects import source_listing
from bulkembed.storage.store import Store
from tests.support.commands import in_process
from tests.support.corpora import write_jsonl, write_small_corpus
from tests.support.listing import fill
from tests.support.runs import in_one_process, read_dataset, simulated


def ids(output: Path) -> list[int]:
    return sorted(read_dataset(output)["id"].to_pylist())


def write_rows(path: Path, *numbers: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, [{"id": number, "text": f"text {number}", "lang": "xx"} for number in numbers])


@pytest.fixture
def cfg(tmp_path: Path, qwen: str) -> RunConfig:
    write_rows(tmp_path / "one" / "a.jsonl", *range(20))
    write_rows(tmp_path / "two" / "a.jsonl", *range(20, 40))
    write_rows(tmp_path / "two" / "old" / "b.jsonl", *range(40, 60))
    return simulated([f"{tmp_path}/two", f"{tmp_path}/one"], tmp_path / "out", qwen)


def newest(tmp_path: Path) -> Any:
    return newest_dataset(Store(), str(tmp_path / "out"))[1]


def test_several_places_are_one_corpus_in_any_order(tmp_path: Path, cfg: RunConfig) -> None:
    in_one_process(cfg).require_complete()
    assert ids(tmp_path / "out") == list(range(60))
    assert newest(tmp_path).sources == [f"{tmp_path}/one", f"{tmp_path}/two"]
    again = cfg.model_copy(update={"source": (f"{tmp_path}/one", f"{tmp_path}/two")})
    assert open_job(again)[1].is_still
    in_one_process(again).require_complete()
    assert newest(tmp_path).number == 1


def test_a_place_that_is_added_reads_only_its_own_objects(tmp_path: Path, cfg: RunConfig) -> None:
    in_one_process(cfg.model_copy(update={"source": f"{tmp_path}/one"})).require_complete()
    _, plan = open_job(cfg)
    assert (plan.rows_pending, len(plan.versions.held)) == (40, 2)
    in_one_process(cfg).require_complete()
    assert ids(tmp_path / "out") == list(range(60))
    with pytest.raises(HeldBack, match=r"20 of 60 .*mend the source .*/two, which is not that of the snapshot"):
        in_one_process(cfg.model_copy(update={"source": f"{tmp_path}/two"}))


def test_rows_of_excluded_names_count_as_deletes(tmp_path: Path, cfg: RunConfig) -> None:
    in_one_process(cfg).require_complete()
    excluding = cfg.model_copy(update={"exclude": ("old",)})
    with pytest.raises(HeldBack, match=r"20 of 60 documents .*, which has another exclude, or let them go with --allow-deletes 20"):
        in_one_process(excluding)
    in_one_process(excluding.model_copy(update={"allow_deletes": 20})).require_complete()
    assert ids(tmp_path / "out") == list(range(40))
    assert (newest(tmp_path).number, newest(tmp_path).exclude) == (2, ["old"])
    in_one_process(excluding).require_complete()
    assert newest(tmp_path).number == 2
    in_one_process(cfg).require_complete()
    assert ids(tmp_path / "out") == list(range(60))


def test_the_snapshot_and_the_status_say_what_was_left_out(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    fill(tmp_path / "in", "b.pdf", "c.pdf", "_SUCCESS", "tmp/x.jsonl")
    (tmp_path / "in" / "bad.parquet").write_bytes(b"no parquet")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, exclude=["tmp", "nothing"], skip_unreadable=True)
    job, plan = open_job(cfg)
    summary = in_one_process(cfg)
    summary.require_complete()
    (status,) = status_of(Store(), str(tmp_path / "out"))
    lines = [
        "left out 2 with the suffix .pdf: b.pdf, c.pdf",
        "left out 1 hidden by a leading dot or underscore: _SUCCESS",
        "left out 1 excluded by tmp: tmp/",
        "left out 0 excluded by nothing",
    ]
    for text in (run_text.plan_text(job, plan), run_text.summary_text(job, summary, 1.0), dataset_text.run_status_text(status)):
        shown = [" ".join(line.split()) for line in text.splitlines()]
        assert [line for line in lines if line not in shown] == []
        assert any(re.match(rf"(skipped|unreadable) {tmp_path}/in/bad\.parquet", line) for line in shown)
    assert newest(tmp_path).left_out[0] == {"reason": "with the suffix .pdf", "count": 2, "examples": ["b.pdf", "c.pdf"]}
    in_one_process(cfg).require_complete()
    assert len(snapshots(Store(), str(tmp_path / "out"))) == 1
    fill(tmp_path / "in", "d.pdf")
    in_one_process(cfg).require_complete()
    assert (newest(tmp_path).number, newest(tmp_path).left_out[0]["count"]) == (2, 3)


def test_another_spelling_of_the_source_is_the_same_source(bucket: tuple[Store, str], tmp_path: Path, qwen: str) -> None:
    store, root = bucket
    fill(root, "in/a.jsonl", store=store, data=b'{"id": 1, "text": "a", "lang": "xx"}\n')
    cfg = simulated(f"{root}/in", f"{root}/out", qwen, storage=store.settings)
    in_one_process(cfg).require_complete()
    bare = root.removeprefix("s3://")
    for source in (f"s3a://{bare}/in", f"S3://{bare}/in/", f"s3n://{bare}/in//", [f"s3a://{bare}/in/"]):
        again = simulated(source, f"{root}/out", qwen, storage=store.settings)
        assert open_job(again)[1].is_still
        in_one_process(again).require_complete()
    assert len(snapshots(store, f"{root}/out")) == 1


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("s3://b/docs//x", "s3://b/docs/x/vec"),
        ("s3://b/./docs", "s3n://b/docs/vec"),
        ("s3://b/a/../docs", "S3A://b/docs/vec"),
        (["s3://a/x", "s3://b/docs"], "s3://b/docs/vec"),
        ("HTTPS://Host/docs", "https://host/docs/vec"),
        ("FILE:///a/b/", "/a/./b/c"),
        ("File:/a/b", "file://localhost/a/b/c"),
        ("/a/c/../b", "Local:///a/b/c"),
    ],
)
def test_no_spelling_of_a_place_hides_an_overlap(source: Any, output: str, qwen: str) -> None:
    with pytest.raises(ConfigError, match="inside one another"):
        open_job(simulated(source, output, qwen))


@pytest.mark.parametrize(
    ("pattern", "output", "is_refused"),
    [
        ("part-*/x.jsonl", "out", False),
        ("[a-n]*/*.jsonl", "out", False),
        ("*/x.jsonl", "out", True),
        ("o*/*.jsonl", "out/deep/er", True),
        ("*.jsonl", "out", True),
        ("**/*.jsonl", "out", True),
        ("in/**", "out", False),
        ("*.jsonl", "", True),
    ],
)
def test_an_output_that_a_pattern_cannot_reach_is_none_of_the_source(tmp_path: Path, pattern: str, output: str, is_refused: bool) -> None:
    with pytest.raises(ConfigError, match="inside one another") if is_refused else nullcontext():
        refuse_overlap(Store(), f"{tmp_path}/{pattern}", str(tmp_path / output))


def test_the_command_line_takes_several_places_and_patterns(tmp_path: Path, cfg: RunConfig) -> None:
    in_one_process(cfg.model_copy(update={"source": f"{tmp_path}/one"})).require_complete()
    given = ["--output", cfg.output, "--model", cfg.model, "--max-tokens", "64", "--keep-column", "lang", "--set", "engine.kind=simulated"]
    places = ["--source", f"{tmp_path}/two", "--source", f"{tmp_path}/one"]
    told = in_process("plan", *places, "--exclude", "old", "--exclude", "*.bak", *given)
    assert told.returncode == 0
    assert f"source       {tmp_path}/two, {tmp_path}/one: 2 objects" in told.stdout
    assert f"left out     1 excluded by old, below {tmp_path}/two: old/\n" in told.stdout
    assert "left out     0 excluded by *.bak\n" in told.stdout
    assert "embed 20 documents" in told.stdout
    (tmp_path / "run.toml").write_text(f'source = ["{tmp_path}/two", "{tmp_path}/one"]\nexclude = ["old", "*.bak"]\n')
    assert in_process("plan", "--config", tmp_path / "run.toml", *given).stdout == told.stdout
    (tmp_path / "run.toml").write_text(f'source = ["{tmp_path}/two", "{tmp_path}/two/"]\n')
    told = in_process("plan", "--config", tmp_path / "run.toml", *given)
    assert told.stderr.startswith(f"bulkembed: source: '{tmp_path}/two' is named twice")


def test_a_feed_does_not_become_documents(tmp_path: Path, cfg: RunConfig) -> None:
    in_one_process(cfg).require_complete()
    told = in_process("changes", "--output", cfg.output, "--from", "0", "--feed", f"{tmp_path}/two/feed")
    assert (told.returncode, told.stderr) == (
        2,
        f"bulkembed: feed: {tmp_path}/two/feed lies in {tmp_path}/two, which the dataset is made of; choose another folder\n",
    )
    assert in_process("changes", "--output", cfg.output, "--from", "0", "--feed", f"{tmp_path}/feed").returncode == 0


def test_a_text_of_ids_has_no_columns(tmp_path: Path, cfg: RunConfig) -> None:
    (tmp_path / "ids.txt").write_text("1\n")
    told = in_process("forget", "--output", cfg.output, "--ids", tmp_path / "ids.txt", "--ids-column", "doc")
    assert (told.returncode, told.stderr) == (
        2,
        f"bulkembed: ids_column: {tmp_path}/ids.txt is no Parquet, and has no columns; leave ids_column out\n",
    )


def test_copies_below_two_places_are_all_there_and_embedded_again_from_there(tmp_path: Path, qwen: str) -> None:
    for name, numbers in (("one", range(3)), ("two", range(3, 6))):
        write_rows(tmp_path / name / "a.jsonl", *numbers)
        os.utime(tmp_path / name / "a.jsonl", (1, 1))
    places = [f"{tmp_path}/one", f"{tmp_path}/two"]
    in_one_process(simulated(places, tmp_path / "out", qwen)).require_complete()
    assert ids(tmp_path / "out") == list(range(6))
    verification = bulkembed.verify(tmp_path / "out", sample=6, source=places[::-1])
    assert verification.resample is not None
    assert (verification.problems, verification.resample.rows) == ([], 6)


def test_keys_with_signs_that_mean_something_elsewhere(bucket: tuple[Store, str], qwen: str) -> None:
    store, root = bucket
    names = ["a b", "a+b", "a%20b", "a#b", "what?", "q=1&r", "[x]", "a;b", "ü", "dt=2026-01-01/x", "a//b"]
    for number, name in enumerate(names):
        fill(f"{root}/in", f"{name}.jsonl", store=store, data=f'{{"id": {number}, "text": "t {number}", "lang": "xx"}}\n'.encode())
    in_one_process(simulated(f"{root}/in", f"{root}/out", qwen, storage=store.settings)).require_complete()
    assert sorted(read_dataset(f"{root}/out", **store.settings)["id"].to_pylist()) == list(range(len(names)))
    for name in names:
        assert [item.uri for item in source_listing(store, f"{root}/in/{name}.jsonl").objects] == [f"{root}/in/{name}.jsonl"]


@pytest.mark.parametrize("name", ["b.jsonl", "b.parquet", "b.csv", "0000_part_00"])
def test_an_object_that_a_store_does_not_give_out_fails_alone(qwen: str, s3: dict[str, Any], bucket: tuple[Store, str], name: str) -> None:
    store, root = bucket
    store.put(f"{root}/in/a.jsonl", b'{"id": 1, "text": "a"}\n')
    filesystem, path = store._locate(f"{root}/in/{name}")
    filesystem.pipe_file(path, b'{"id": 2, "text": "b"}\n', StorageClass="GLACIER")
    cfg = simulated(f"{root}/in", f"{root}/out", qwen, keep_columns=[], storage=s3)
    summary = in_one_process(cfg)
    assert summary.snapshot is None
    (failure,) = summary.failures
    assert failure.where == f"{root}/in/{name}" and "cannot be read" in failure.reason and "in an archive: restore it" in failure.reason
    skipped = in_one_process(cfg.model_copy(update={"skip_unreadable": True}))
    assert skipped.snapshot is not None and skipped.snapshot.unreadable == [failure.where]
    assert read_dataset(f"{root}/out", **s3)["id"].to_pylist() == [1]
