"""Starts a run, kills parts of it at random, and starts it again until it is complete."""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator

import psutil

from scripts.chaos_rounds.material import WORK, Places
from scripts.chaos_rounds.nodes import Nodes

TITLES = {"actor": "ray::Worker", "task": "ray::p"}  # how Ray's processes are called; tasks are `prepare` and `publish`
VICTIMS = {"actor": 5, "task": 3, "node": 1, "driver": 1}  # and how often each is chosen, relative to the others
STARTS_PER_KILL = 10  # so many starts for each kill, and the run can be taken for endless


class DisturbedRun:
    """One run that is disturbed until it is complete."""

    def __init__(self, options: argparse.Namespace, command: list[str], nodes: Nodes) -> None:
        self.options, self.command, self.nodes = options, command, nodes
        self.env = os.environ | {"RAY_ADDRESS": nodes.cluster.address}
        self.random = random.Random(options.seed)  # noqa: S311
        self.killed: Counter[str] = Counter()
        self.starts = 0
        self.max_kills = 0  # in all nights so far
        self.finished_shards = 0  # when the last victim was killed
        self.due = 0.0  # monotonic seconds: when the next victim is killed
        self.driver_mb: list[float] = []  # samples of the driver's memory

    def complete(self, max_kills: int) -> None:
        """Starts the command until it ends with 0. `max_kills`: of this night and those before."""
        self.max_kills = max_kills
        while True:
            self.starts += 1
            with (WORK / f"run-{self.starts}.log").open("w") as log:
                process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
                code = self.disturb(process)
            if code == 0:
                return
            if self.starts > STARTS_PER_KILL * (1 + self.options.kills):
                raise SystemExit(f"chaos: the run does not end; see {WORK}/run-{self.starts}.log")

    def disturb(self, process: subprocess.Popen[bytes]) -> int:
        """Kills parts of the run until it ends. Returns its exit code."""
        self.due = time.monotonic() + self.pause()
        while process.poll() is None:
            time.sleep(0.2)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.driver_mb.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            if victim := self.next_victim():
                self.kill(victim, process)
                self.due = time.monotonic() + self.pause()
        return process.returncode

    def pause(self) -> float:
        """Random seconds until the next kill."""
        return self.random.uniform(0.3, 1.7) * float(self.options.every)

    def next_victim(self) -> str | None:
        """The kind of the next victim; None where it is not time for one. A kind of `--victims` is due when a further shard is finished."""
        victims = self.options.victims
        if not victims:
            is_due = time.monotonic() >= self.due and self.killed.total() < self.max_kills
            return self.random.choices(list(VICTIMS), list(VICTIMS.values()))[0] if is_due else None
        shards = len(list(WORK.glob("out/_meta/receipts/*/*.json")))
        if shards <= self.finished_shards or self.killed.total() == len(victims):
            return None
        self.finished_shards = shards
        return str(victims[self.killed.total()])

    def kill(self, victim: str, process: subprocess.Popen[bytes]) -> None:
        """Kills a random victim of this kind. Nothing counts as killed where no such process runs at the moment."""
        if victim == "driver":
            process.send_signal(self.random.choice([signal.SIGKILL, signal.SIGTERM]))
            process.wait()
        elif victim == "node":
            self.nodes.kill(self.random)
        else:
            candidates = list(processes(TITLES[victim]))
            if not candidates:
                return
            with contextlib.suppress(psutil.NoSuchProcess):
                self.random.choice(candidates).kill()
        self.killed[victim] += 1

    def memory_of_quarters(self) -> list[int]:
        """The driver's peak memory in MB in the second and in the fourth quarter of all samples; the first has its start."""
        quarter = max(1, len(self.driver_mb) // 4)
        return [round(max(self.driver_mb[start : start + quarter])) for start in (quarter, 3 * quarter)]


def processes(title: str) -> Iterator[psutil.Process]:
    """Processes of the cluster that this process has started. Another Ray on this machine belongs to somebody else."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(title):
                yield process


def command_line(options: argparse.Namespace, places: Places, model: str) -> list[str]:
    """`bulkembed run` as a user would start it."""
    command = [sys.executable, "-m", "bulkembed", "run", "--source", places.source, "--output", places.output]
    command += ["--model", model, "--max-tokens", "64"]
    settings = {"shards.max_rows": options.shard_rows, "ray.layout": options.layout, "max_failures": 1_000_000}
    if options.model == "simulated":
        settings |= {"engine.kind": "simulated", "engine.stall_seconds": 60, "engine.tokens_per_second": options.tokens_per_second}
    for name, value in settings.items():
        command += ["--set", f"{name}={value}"]
    return command
