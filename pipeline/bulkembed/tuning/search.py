"""Searches the fastest engine settings: changes one setting at a time, and keeps each change that wins.

It does not measure; `session` does."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bulkembed.config import keys
from bulkembed.config.toml_files import merge

Changes = dict[str, Any]  # keys of the [engine] table, and their new values
Axis = tuple[str, list[Changes]]  # a setting's name, and the alternatives to try

MIN_GAIN = 1.02  # factor by which a setting must be faster to win; less is within the noise
# glibc's own defaults, instead of what `environment` sets.
DEFAULT_MALLOC = {"MALLOC_TOP_PAD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
TCMALLOC = "usr/lib/*-linux-gnu/libtcmalloc_minimal.so.4"  # where Debian and Ubuntu have it


@dataclass(frozen=True)
class Trial:
    """One measurement of settings."""

    changes: Changes
    rate: float  # tokens/s of the host; 0 where the settings failed
    problem: str = ""
    seconds: float = field(default=0.0, compare=False)  # of wall time, loading included

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in flat(self.changes)) or "as configured"


def cpu_axes(cores: set[int], dtype: str) -> list[Axis]:
    """Axes of a CPU host, the most promising first, since the time may not suffice for all. `dtype`: the configured one."""
    first, last = min(cores), max(cores)
    fewer = sorted({len(cores) - 1, len(cores) // 2} - {0, len(cores)})
    preloads = sorted(Path("/").glob(TCMALLOC))
    return [
        ("step tokens", [{"step_tokens": tokens} for tokens in (4096, 16384, 2048)]),
        ("allocator", [*({"env": {"LD_PRELOAD": str(path)}} for path in preloads), {"env": DEFAULT_MALLOC}]),
        ("binding", [{"env": {"VLLM_CPU_OMP_THREADS_BIND": f"{first}-{last}"}}] if len(cores) == last - first + 1 else []),
        ("call tokens", [{"call_tokens": tokens} for tokens in (32768, 262144)]),
        ("threads", [{"env": {"OMP_NUM_THREADS": str(count)}} for count in fewer]),
        ("actors", [{"replicas": 2}] if len(cores) >= 4 else []),
        ("engine process", [{"env": {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}}]),
        ("dtype", [{"dtype": other} for other in ("float32", "bfloat16") if other != dtype]),
    ]


def gpu_axes(gpus: int) -> list[Axis]:
    """Axes of a GPU host. Loading takes a minute there, so what helped a small model most on an H100 comes first."""
    return [
        ("step tokens", [{"step_tokens": tokens} for tokens in (32768, 16384, 65536)]),
        ("actors on a GPU", [{"num_gpus": 0.5, "tensor_parallel_size": 1}]),
        ("engine process", [{"env": {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}}]),
        ("GPUs of an actor", [{"num_gpus": count, "tensor_parallel_size": count} for count in (2, 4, 8) if count <= gpus]),
        ("sequences", [{"args": {"max_num_seqs": count}} for count in (512, 1024)]),
        ("compilation", [{"args": {"enforce_eager": True}}]),
        ("call tokens", [{"call_tokens": tokens} for tokens in (524288,)]),
        ("dtype", [{"dtype": "float16"}]),
    ]


def search_settings(axes: list[Axis], measure: Callable[[Changes], Trial], deadline: float) -> Iterator[Trial]:
    """Yields each trial when it is measured: one axis after the other, each starting from the best settings so far.

    Ends before a trial that could pass the deadline (of time.monotonic), and at once where the configured settings fail.
    The last two trials measure the configured and the best settings once more."""
    longest = 0.0

    def timed(changes: Changes) -> Trial:
        nonlocal longest
        started = time.monotonic()
        trial = measure(changes)
        seconds = time.monotonic() - started
        longest = max(longest, seconds)
        return replace(trial, seconds=seconds)

    first = best = timed({})
    yield first
    if not first.rate:
        return
    for _, options in axes:
        base = best
        for option in options:
            if time.monotonic() + 3 * longest > deadline:  # one for this trial, two for the last two
                break
            trial = timed(merge(base.changes, option))
            yield trial
            if trial.rate > best.rate * MIN_GAIN:
                best = trial
    if best is not first:
        yield timed(first.changes)
        yield timed(best.changes)


def best_of(trials: list[Trial]) -> tuple[Trial, Trial]:
    """The configured and the fastest settings, by the last two trials; twice the configured ones where the winner lost there.

    Only these two trials count: among many trials one is always faster by luck."""
    first, best = (trials[-2], trials[-1]) if len(trials) > 2 and not trials[-2].changes else (trials[0], trials[0])
    return first, best if best.rate > first.rate else first


def untried(axes: list[Axis], trials: list[Trial]) -> list[str]:
    """Names of the axes of which nothing was tried, because the time was up."""
    tried = [set(flat(trial.changes)) for trial in trials]
    return [name for name, options in axes if options and not any(set(flat(option)) <= seen for option in options for seen in tried)]


def flat(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Values with dotted names, such as `env.OMP_NUM_THREADS`."""
    for key, value in changes.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def toml(changes: Changes) -> str:
    """The changes as an [engine] table."""
    return "\n".join(["[engine]", *(f"{key} = {keys.toml(value)}" for key, value in flat(changes)), ""])
