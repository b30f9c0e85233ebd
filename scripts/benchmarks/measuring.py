"""Commands that are measured while they run: wall time, memory of the process tree, first line of output."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import psutil


@dataclass(frozen=True)
class CommandRun:
    """A command that has succeeded."""

    output: str
    peak: float  # the largest sample; bytes of the process tree unless the caller samples something else
    started: float  # unix seconds
    first_line: float  # seconds from the start to the first line of output
    wall: float  # seconds


def seconds_of(work: Callable[[], object]) -> float:
    """Seconds of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty once it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_of(process: psutil.Process) -> int:
    """Proportional set size in bytes, which counts shared pages once over all processes; 0 once the process has ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


def tree_memory(pid: int) -> int:
    return sum(map(memory_of, tree(pid)))


def peak_bytes() -> int:
    """The largest memory of this process. `ru_maxrss` would be that of its parent where the parent was larger as it forked."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def run_command(
    command: Sequence[str], env: Mapping[str, str], sample: Callable[[int], float] = tree_memory, every: float = 1.0
) -> CommandRun:
    """Runs a command and samples it by its process id. Raises SystemExit with the end of its errors where it fails."""
    started, clock = time.time(), time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
        first, lines = 0.0, []
        with sampling(process, sample, every) as samples:
            for line in process.stdout or ():
                first = first or time.monotonic() - clock
                lines.append(line)
            process.wait()
        if process.returncode != 0:
            raise SystemExit(f"bench: {' '.join(command[:4])} ... failed with {process.returncode}:\n{end_of(errors)}")
    return CommandRun("".join(lines), max(samples), started, first, time.monotonic() - clock)


@contextmanager
def sampling(process: subprocess.Popen[str], sample: Callable[[int], float], every: float) -> Iterator[list[float]]:
    """Collects samples in a thread. Ends the process where the caller is interrupted: it would disturb the next measurement."""
    samples, ended = [0.0], threading.Event()

    def collect() -> None:
        while not ended.wait(every):
            samples.append(sample(process.pid))

    collector = threading.Thread(target=collect)
    collector.start()
    try:
        yield samples
    finally:
        ended.set()
        collector.join()
        if process.poll() is None:
            process.terminate()
            process.wait()


def end_of(errors: IO[str]) -> str:
    errors.seek(0)
    return errors.read()[-3000:]


def run_module(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> CommandRun:
    """Runs a module of this package in a process of its own."""
    command = [sys.executable, "-m", f"scripts.benchmarks.{module}", *map(str, arguments)]
    return run_command(command, os.environ | (env or {}))
