"""Runs that are killed after any of their writes, and the source that is rewritten before the next one."""

from __future__ import annotations

import contextlib
import shutil
import signal
import subprocess
import sys
from copy import deepcopy
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from bulkembed.storage import retry
from bulkembed.storage.store import Store
from tests.support.faulty_s3 import FaultyS3
from tests.support.nights import CountingEmbedder, Killed, Upstream, WritesUntilKilled, sorted_rows
from tests.support.processes import PATIENCE, ROOT
from tests.support.runs import in_one_process, problems, read_dataset, simulated

DOCUMENTS, MAX_ROWS = 20, 12


@dataclass(frozen=True)
class Nights:
    """An output before a night, the documents of that night, and what the dataset must be afterwards."""

    folder: Path
    model: str
    upstream: Upstream
    expected: pa.Table

    def config(self, name: str = "out") -> RunConfig:
        return simulated(self.folder / "in", self.folder / name, self.model, shards={"max_rows": MAX_ROWS})

    def restart(self, name: str = "out") -> RunConfig:
        """The night before its first write: its source and its output."""
        shutil.rmtree(self.folder / name, ignore_errors=True)
        if (self.folder / "before").exists():
            shutil.copytree(self.folder / "before", self.folder / name)
        self.upstream.write(self.folder / "in")
        return self.config(name)

    def following(self) -> Nights:
        """The night after this one, if this one never ends."""
        upstream = deepcopy(self.upstream)
        upstream.next_night(DOCUMENTS)
        return replace(self, upstream=upstream, expected=rows_from_scratch(upstream, self.folder, self.model))

    def require_undisturbed(self, name: str = "out") -> None:
        assert sorted_rows(read_dataset(self.folder / name)).equals(self.expected)
        assert problems(self.folder / name) == []


def night_after(nights: int, folder: Path, model: str) -> Nights:
    """A night that follows `nights` others."""
    upstream = Upstream(seed=nights, documents=DOCUMENTS)
    for _ in range(nights):
        upstream.write(folder / "in")
        in_one_process(simulated(folder / "in", folder / "before", model, shards={"max_rows": MAX_ROWS})).require_complete()
        upstream.next_night(DOCUMENTS)
    return Nights(folder, model, upstream, rows_from_scratch(upstream, folder, model))


def rows_from_scratch(upstream: Upstream, folder: Path, model: str) -> pa.Table:
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    upstream.write(folder / "in")
    in_one_process(simulated(folder / "in", folder / "scratch", model)).require_complete()
    return sorted_rows(read_dataset(folder / "scratch"))


def embed(cfg: RunConfig) -> list[bytes]:
    """The documents that reach the engine of a run, also where it is killed."""
    embedder = CountingEmbedder()
    with contextlib.suppress(Killed):
        run(cfg, lambda progress: None, LocalExecutor(embedder)).require_complete()
    return embedder.seen


@pytest.mark.parametrize("nights", [0, 1])
def test_a_kill_after_any_write_costs_at_most_the_work_of_one_shard(tmp_path: Path, qwen: str, nights: int) -> None:
    night = night_after(nights, tmp_path, qwen)
    following = night.following()
    with pytest.MonkeyPatch.context() as patched:
        undisturbed = WritesUntilKilled(patched, inf)
        embed(night.restart())
    night.require_undisturbed()
    for writes in range(undisturbed.done):
        with pytest.MonkeyPatch.context() as patched:
            WritesUntilKilled(patched, writes)
            seen = embed(night.restart())
        after = following if writes % 2 else night
        after.upstream.write(tmp_path / "in")  # other names, cuts and order, and every other time other documents
        seen += embed(night.config())
        after.require_undisturbed()
        assert len(seen) - len(set(seen)) <= MAX_ROWS, f"killed after {writes} writes"


def test_a_process_that_is_killed_leaves_what_the_next_run_completes(tmp_path: Path, qwen: str) -> None:
    night = night_after(1, tmp_path, qwen)
    command = [sys.executable, "-m", "tests.support.killed_night"]
    writes = {f"out-{number}": number for number in (2, 6, 12)}
    killed = []
    for name, number in writes.items():
        shutil.copytree(tmp_path / "before", tmp_path / name)
        killed.append(subprocess.Popen([*command, night.config(name).model_dump_json(), str(number)], cwd=ROOT))
    assert [process.wait(PATIENCE) for process in killed] == [-signal.SIGKILL] * len(killed)
    night.upstream.write(tmp_path / "in")
    for name in writes:
        embed(night.config(name))
        night.require_undisturbed(name)


def test_nights_on_an_s3_server_that_breaks_requests(
    tmp_path: Path, qwen: str, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.01)
    store, root = Store(s3), f"s3://corpus/{tmp_path.name}"
    upstream = Upstream(seed=3, documents=DOCUMENTS)
    with FaultyS3(s3["endpoint_url"], seed=1, rate=0.1, faults=["503", "reset", "truncate"]) as proxy:
        cfg = simulated(f"{root}/in", f"{root}/out", qwen, storage=s3 | {"endpoint_url": proxy.url})
        for _ in range(2):
            for stored in store.names(f"{root}/in"):
                store.delete(f"{root}/in/{stored}")
            upstream.write(tmp_path / "in")
            for path in (tmp_path / "in").iterdir():
                store.put(f"{root}/in/{path.name}", path.read_bytes())
            in_one_process(cfg).require_complete()
            in_one_process(simulated(tmp_path / "in", tmp_path / "scratch", qwen)).require_complete()
            assert sorted_rows(read_dataset(f"{root}/out", **s3)).equals(sorted_rows(read_dataset(tmp_path / "scratch")))
            shutil.rmtree(tmp_path / "scratch")
            upstream.next_night(DOCUMENTS)
        assert min(proxy.counts[fault] for fault in proxy.faults) > 0
        proxy.faults = []
        proxy.methods.clear()
        in_one_process(cfg).require_complete()  # nothing changed
        assert proxy.methods["PUT"] == 0
        assert proxy.methods.total() < 130
