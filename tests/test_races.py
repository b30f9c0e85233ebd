"""Several runs at the same output at the same time, as processes of their own; and a short round of chaos."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.storage.store import Store
from tests.support.commands import in_process, job, start, wait_for_receipts
from tests.support.corpora import write_corpus
from tests.support.processes import PATIENCE, ROOT
from tests.support.runs import read_dataset

# Half a core: all of them run at once.
SLOW = ("--set", "engine.tokens_per_second=2000", "--set", "engine.num_cpus=0.5")


def arguments(tmp_path: Path, model: str, *more: object) -> list[object]:
    return job(tmp_path, model, *SLOW, *more)


@pytest.mark.usefixtures("shared_ray")
def test_two_identical_runs_and_a_different_one_at_once(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    runs = [
        start(arguments(tmp_path, qwen)),
        start(arguments(tmp_path, qwen)),
        start(arguments(tmp_path, qwen, "--dims", 32, "--set", "shards.max_rows=33")),
    ]
    wait_for_receipts(tmp_path / "out", 3, *runs)
    early = in_process("verify", "--output", tmp_path / "out")  # no snapshot yet, or a whole one
    assert early.returncode == 0 or "no finished dataset" in early.stderr
    for run in runs:
        _, errors = run.communicate(timeout=PATIENCE)
        assert run.returncode == 0, errors
    snapshots = sorted(path.stem for path in tmp_path.glob("out/_meta/snapshots/*.json"))
    assert snapshots == [f"{number:08d}" for number in range(1, len(snapshots) + 1)], "a line without holes"
    assert 2 <= len(snapshots) <= 3
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
    assert in_process("verify", "--output", tmp_path / "out").returncode == 0
    _, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    for fingerprint in (path.stem for path in tmp_path.glob("out/_meta/runs/*.json")):
        done = Ledger(Store(), str(tmp_path / "out"), fingerprint).done()
        assert {path.stem for path in tmp_path.glob(f"out/data/{fingerprint}/*")} == set(done)
    assert snapshot.documents == len(rows)


@pytest.mark.usefixtures("shared_ray", "ray_here")
def test_a_run_during_verify_and_search_leaves_them_the_dataset_they_began_with(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    assert in_process(*arguments(tmp_path, qwen)).returncode == 0
    write_corpus(tmp_path / "in", files=4)
    before = len(list(tmp_path.glob("out/_meta/receipts/*/*.json")))
    run = start(arguments(tmp_path, qwen))

    def look() -> None:
        assert in_process("verify", "--output", tmp_path / "out").returncode == 0
        assert in_process("search", "--output", tmp_path / "out", "--query", "shard", "-k", 1).returncode == 0

    for more in (1, 3):  # of five: it stands before its last shard, not between the snapshot and current.txt
        wait_for_receipts(tmp_path / "out", before + more, run)
        run.send_signal(signal.SIGSTOP)  # it stands still as long as they look
        try:
            look()
        finally:
            run.send_signal(signal.SIGCONT)  # else it would keep the shared Ray from every test that follows
    while run.poll() is None:
        look()
    _, errors = run.communicate(timeout=PATIENCE)
    assert run.returncode == 0, errors
    assert "200 documents" in in_process("verify", "--output", tmp_path / "out").stdout


@pytest.mark.ray
def test_chaos() -> None:
    """A round of two nights on a cluster; `scripts/chaos` has longer ones, and `test_chaos` each kind of fault alone."""
    plan = ["kill-actor", "kill-node", "pause-task", "kill-driver", "clock-driver", "kill-publishing"]
    what = ["--plan", ",".join(plan), "--nights", "2", "--documents", "1500", "--seed", "11", "--json"]
    command = [sys.executable, "-m", "scripts.chaos_rounds", *what]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=560)
    assert result.returncode == 0, result.stdout + result.stderr[-2000:]
    found = json.loads(result.stdout.splitlines()[-1])
    assert {kind: counts["faults"] for kind, counts in found["kinds"].items()} == dict.fromkeys(plan, 1)
    assert (found["lost"], found["doubled"], found["different"], found["problems"], found["tracebacks"]) == (0, 0, 0, [], [])
