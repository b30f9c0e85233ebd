"""What `run --json` leaves on standard output, however a run ends."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bulkembed import stopping
from bulkembed.cli.last_line import Call
from bulkembed.report.run_json import RunLine
from bulkembed.runs.lookup import open_job
from tests.cli.test_signals import started
from tests.support.commands import in_process, job
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.processes import PATIENCE, wait_until_taken
from tests.support.runs import here, simulated

KEYS = set(RunLine.__annotations__)


def only_line(result: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    """The object on standard output, which holds nothing else."""
    assert result.stdout.count("\n") == 1, result.stdout
    line: dict[str, Any] = json.loads(result.stdout)
    assert set(line) == KEYS
    assert line["exit_code"] == result.returncode, result.stderr
    return line


def counts(line: dict[str, Any], *names: str) -> list[Any]:
    return [line[name] for name in names]


@pytest.fixture
def night(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs tonight's command in this process, on an engine of this process."""
    here(monkeypatch)
    write_corpus(tmp_path / "in", files=2)
    return lambda *more: in_process(*job(tmp_path, qwen, "--json", *more))


def test_nights_of_all_kinds(tmp_path: Path, night: Any) -> None:
    first = only_line(night("--run-key", "monday"))
    assert counts(first, "snapshot", "parent", "current", "documents", "embedded", "added", "error") == [1, None, True, 100, 100, 100, None]
    assert first["tokens"] > 100
    still = only_line(night())
    assert counts(still, "snapshot", "parent", "documents", "embedded", "tokens", "added", "reused") == [1, 1, 100, 0, 0, 0, 0]
    rows = [{"id": 5, "text": "new", "lang": "en"}, {"id": 6, "text": "new", "lang": "en"}, {"id": 7, "text": "", "lang": "en"}]
    write_jsonl(tmp_path / "in" / "tonight.jsonl", [*rows, {"id": 8, "text": "0", "lang": "xx"}])
    names = ("snapshot", "parent", "documents", "embedded", "reused", "added", "changed", "deleted", "rejected", "duplicates", "left_out")
    dry = night("--dry-run")
    assert "to do        embed 1 document" in dry.stderr and "estimate     exactly" in dry.stderr
    planned, second = only_line(dry), only_line(night())
    assert counts(second, *names) == [2, 1, 103, 1, 1, 3, 0, 0, 1, 1, 0]
    assert counts(planned, *names) == [None, 1, None, 1, 1, 3, 0, 0, 1, 1, 0]
    assert (planned["line"], planned["tokens"]) == (second["line"], None)
    shutil.rmtree(tmp_path / "in")  # a repeat does not look at the source
    repeated = only_line(night("--run-key", "monday"))
    assert counts(repeated, "snapshot", "parent", "current", "embedded", "exit_code") == [1, 2, False, 0, 0]


def test_everything_else_is_on_standard_error(night: Any) -> None:
    result = night()
    only_line(result)
    assert "embedded     100 documents" in result.stderr
    assert "  to do        embed 100 documents" in result.stderr


def test_a_run_that_is_held_back_or_incomplete(tmp_path: Path, night: Any) -> None:
    assert night().returncode == 0
    (tmp_path / "in" / "part-1.jsonl").unlink()
    planned = only_line(night("--dry-run"))
    assert planned["deleted"] == 50
    assert "50 of 100 documents of snapshot 1 would leave" in planned["error"]
    held = only_line(night())
    assert counts(held, "exit_code", "snapshot", "parent", "documents", "deleted") == [3, None, 1, None, 50]
    assert held["error"].startswith("held back: nothing was embedded or published")
    (tmp_path / "in" / "part-1.parquet").write_bytes(b"no parquet")
    broken = only_line(night())
    assert counts(broken, "exit_code", "snapshot") == [1, None]
    assert "part-1.parquet" in broken["error"]


@pytest.mark.parametrize(
    ("more", "error"),
    [
        (["--dims", "65"], "dims: 65 is more than the 64"),
        (["--sauce", "x"], "--sauce: no such option"),
        (["--limit"], "requires an argument"),
        (["--config", "/no/such.toml"], "--config /no/such.toml: No such file"),
    ],
)
def test_a_mistake_is_told_in_the_line_too(night: Any, more: list[str], error: str) -> None:
    result = night(*more)
    line = only_line(result)
    assert (line["exit_code"], line["snapshot"], line["embedded"]) == (2, None, 0)
    assert error in line["error"]
    assert result.stderr == f"bulkembed: {line['error']}\n"


def test_secrets_are_hidden_in_the_line(night: Any) -> None:
    line = only_line(night("--set", "storage.planted-secret.x=planted-secret", "--set", "engine=planted-secret"))
    assert line["exit_code"] == 2
    assert "planted-secret" not in str(line)


def test_a_run_that_is_skipped_says_who_runs(tmp_path: Path, qwen: str, night: Any) -> None:
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    opened, _ = open_job(cfg)
    script = (
        "import sys, time\nfrom bulkembed.dataset.leases import lease\nfrom bulkembed.storage.store import Store\n"
        "with lease(Store(), sys.argv[1], sys.argv[2], False, 60, 'skip'):\n  print('there', flush=True); time.sleep(600)"
    )
    other = started("-c", script, tmp_path / "out", opened.line)
    assert other.stdout is not None
    assert other.stdout.readline() == "there\n"
    try:
        line = only_line(night())
    finally:
        other.kill()
        other.communicate()
    assert counts(line, "exit_code", "snapshot", "line", "embedded") == [0, None, opened.line, 0]
    assert "is already writing to line" in line["error"]


def test_an_interrupted_run(night: Any, stop: stopping.Stop) -> None:
    stop.request(signal.SIGTERM)
    line = only_line(night())
    assert line["exit_code"] == 143
    assert line["error"].startswith("interrupted: ")


STUCK = """
import sys, time
from bulkembed.cli import signals
signals.TIDY_SECONDS = float(sys.argv[1])
signals.catch()
from bulkembed.cli import app
app.outcome = lambda words, call: (sys.stderr.write("there\\n"), time.sleep(600))
app.main(["run", "--json"])
"""


@pytest.mark.parametrize("signals", [[signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]])
def test_a_run_that_a_signal_ends_wherever_it_is(signals: list[signal.Signals]) -> None:
    process = started("-c", STUCK, 0.1 if len(signals) == 1 else 600)
    assert process.stderr is not None
    assert process.stderr.readline() == "there\n"
    for each in signals:
        process.send_signal(each)
        wait_until_taken(process, each)
    output, _ = process.communicate(timeout=PATIENCE)
    line = json.loads(output)
    assert process.returncode == line["exit_code"] == (143 if len(signals) == 1 else 130)
    assert line["error"].startswith("interrupted: ")


def test_the_line_is_printed_once() -> None:
    call = Call(["run", "--json"])
    assert call.last_line(signal.SIGTERM)
    assert not call.last_line(signal.SIGTERM)
