"""Which engine settings are fastest for these documents on this host: one after the other is measured, the best stays."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from bulkembed.config.toml_files import merge

Changes = dict[str, Any]  # of the [engine] table
Axis = tuple[str, list[Changes]]

MARGIN = 1.02  # by which a setting must win: less is noise
# What glibc does where nothing is set, against the settings of `environment`.
PLAIN_MALLOC = {"MALLOC_TOP_PAD_": "131072", "MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
TCMALLOC = "usr/lib/*-linux-gnu/libtcmalloc_minimal.so.4"  # of Debian and Ubuntu


@dataclass(frozen=True)
class Trial:
    changes: Changes
    rate: float  # tokens/s of the host; 0 where it failed
    problem: str = ""
    seconds: float = field(default=0.0, compare=False)  # that it took, loading included

    @property
    def name(self) -> str:
        return " ".join(f"{key}={value}" for key, value in flat(self.changes)) or "as configured"


def cpu_axes(cores: set[int], dtype: str) -> list[Axis]:
    """`dtype`: as configured. Those that are likely to matter most come first: the time may not suffice for all."""
    first, last = min(cores), max(cores)
    fewer = sorted({len(cores) - 1, len(cores) // 2} - {0, len(cores)})
    preloads = sorted(Path("/").glob(TCMALLOC))
    return [
        ("step tokens", [{"step_tokens": tokens} for tokens in (4096, 16384, 2048)]),
        ("allocator", [*({"env": {"LD_PRELOAD": str(path)}} for path in preloads), {"env": PLAIN_MALLOC}]),
        ("binding", [{"env": {"VLLM_CPU_OMP_THREADS_BIND": f"{first}-{last}"}}] if len(cores) == last - first + 1 else []),
        ("call tokens", [{"call_tokens": tokens} for tokens in (32768, 262144)]),
        ("threads", [{"env": {"OMP_NUM_THREADS": str(count)}} for count in fewer]),
        ("actors", [{"replicas": 2}] if len(cores) >= 4 else []),
        ("engine process", [{"env": {"VLLM_ENABLE_V1_MULTIPROCESSING": "1"}}]),
        ("dtype", [{"dtype": other} for other in ("float32", "bfloat16") if other != dtype]),
    ]


def gpu_axes(gpus: int) -> list[Axis]:
    """Loading takes a minute there: what a small model gained most by on an H100 comes first."""
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


def search(axes: list[Axis], measure: Callable[[Changes], Trial], deadline: float) -> Iterator[Trial]:
    """Trials as they are made: an axis at a time, from the best so far. Ends when the next one might pass the
    deadline (of time.monotonic), at once where the first fails. What has won is measured once more, after what it won over."""
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
            if time.monotonic() + 3 * longest > deadline:  # this one, and two to confirm the best
                break
            trial = timed(merge(base.changes, option))
            yield trial
            if trial.rate > best.rate * MARGIN:
                best = trial
    if best is not first:
        yield timed(first.changes)
        yield timed(best.changes)


def best_of(trials: list[Trial]) -> tuple[Trial, Trial]:
    """What was configured, and the fastest: the same where nothing won, or what had won did not win again.

    The trials that it won by do not count: of many, one is always lucky."""
    first, best = (trials[-2], trials[-1]) if len(trials) > 2 and not trials[-2].changes else (trials[0], trials[0])
    return first, best if best.rate > first.rate else first


def untried(axes: list[Axis], trials: list[Trial]) -> list[str]:
    """Names of the axes that the time did not suffice for."""
    made = [set(flat(trial.changes)) for trial in trials]
    return [name for name, options in axes if options and not any(set(flat(option)) <= seen for option in options for seen in made)]


def flat(changes: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in changes.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def toml(changes: Changes) -> str:
    """An [engine] table: numbers, truth values and strings are written in TOML as in JSON."""
    return "\n".join(["[engine]", *(f"{key} = {json.dumps(value)}" for key, value in flat(changes)), ""])
