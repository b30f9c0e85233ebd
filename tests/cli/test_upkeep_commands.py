"""The commands that keep an output small."""

from __future__ import annotations

from pathlib import Path

import pytest

import bulkembed
from bulkembed.storage.store import Store
from tests.support.commands import in_process
from tests.support.outputs import Output


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
