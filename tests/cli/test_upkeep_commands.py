"""The commands that keep an output small."""

from __future__ import annotations

from pathlib import Path

import pytest

import bulkembed
from bulkembed.storage.store import Store
from tests.support.commands import in_process
from tests.support.corpora import write_small_corpus
from tests.support.outputs import Output
from tests.support.runs import in_one_process, simulated


@pytest.fixture
def output(tmp_path: Path) -> Output:
    made = Output(Store(), str(tmp_path / "out"))
    for night in range(4):
        made.publish("a", [f"f{night}"])
    return made


def test_gc_shows_what_it_would_do_and_does_it(output: Output) -> None:
    command = ["gc", "--output", output.at, "--keep", "2", "--grace", "0"]
    before = output.names()
    shown = in_process(*command, "--dry-run")
    assert (
        shown.returncode == 0 and "to expire    snapshots 1, 2" in shown.stdout and "2 x data, 2.0 KB: of expired snapshots" in shown.stdout
    )
    assert output.names() == before
    done = in_process(*command)
    assert done.returncode == 0 and "deleted      2 x data, 2.0 KB: of expired snapshots" in done.stdout
    assert output.data("a") == {"f2", "f3"}


def test_gc_refuses_in_one_line_and_shows_the_refusal(output: Output) -> None:
    command = ["gc", "--output", output.at, "--keep", "1", "--grace", "0"]
    assert "held back" in in_process(*command, "--dry-run").stdout
    refused = in_process(*command)
    assert refused.returncode == 3 and len(refused.stderr.splitlines()) == 1 and "--allow-share 0.7" in refused.stderr
    assert in_process(*command, "--allow-share", "0.8").returncode == 0


def test_tags_are_given_and_removed(output: Output) -> None:
    command = ["gc", "--output", output.at, "--keep", "1"]
    assert in_process(*command, "--tag", "golden=1").returncode == 0
    assert [snapshot.number for snapshot in bulkembed.plan_gc(output.at, keep=1).state.live] == [1, 4]
    assert "snapshot 1" in in_process(*command, "--untag", "golden").stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tag", "golden"], "--tag: 'golden' is not NAME=NUMBER"),
        (["--tag", "golden=9"], "there is no snapshot 9"),
        (["--untag", "golden"], "has no tag golden"),
        (["--tag", "golden=1", "--dry-run"], "--dry-run: writes nothing"),
        (["--grace", "soon"], "grace: 'soon' is no duration such as 90s, 30m, 24h or 7d"),
        (["--older-than", "-1d"], "older_than: '-1d' is no duration"),
    ],
)
def test_mistakes_are_answered_in_one_line(output: Output, arguments: list[str], message: str) -> None:
    answer = in_process("gc", "--output", output.at, *arguments)
    assert answer.returncode == 2 and message in answer.stderr and len(answer.stderr.splitlines()) == 1


def test_ids_are_erased_and_taken_back(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    (tmp_path / "ids.txt").write_text("1\n3\n9\n")
    command = ["forget", "--output", tmp_path / "out", "--ids", tmp_path / "ids.txt"]
    done = in_process(*command)
    assert done.returncode == 0 and "3: 2 found, 1 not found" in done.stdout
    assert "2 documents; snapshot 2 published without them" in done.stdout and "--grace 0 now" in done.stdout
    assert "1 x data" in in_process("gc", "--output", tmp_path / "out", "--grace", "0", "--allow-share", "1").stdout
    assert bulkembed.open_dataset(tmp_path / "out").to_table()["id"].to_pylist() == [0, 2, 4]
    assert "3: 3 were on the list" in in_process(*command, "--undo").stdout
    missing = in_process(*command[:-1], tmp_path / "none.txt")
    assert missing.returncode == 2 and "ids: there is no file" in missing.stderr


def test_a_reader_pins_what_it_reads(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    rows = bulkembed.open_dataset(tmp_path / "out", pin="2h")
    write_small_corpus(tmp_path / "in", files=2)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    bulkembed.gc(tmp_path / "out", keep=1, grace=0, allow_share=1)
    assert [snapshot.number for snapshot in bulkembed.plan_gc(tmp_path / "out").state.live] == [1, 2]
    assert rows.count_rows() == 5
    with pytest.raises(bulkembed.ConfigError, match="pin: 'soon' is no duration"):
        bulkembed.open_dataset(tmp_path / "out", pin="soon")
