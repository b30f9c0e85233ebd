"""The parts of an engine's start, from vLLM's own log. Every process of an engine writes into one file."""

from __future__ import annotations

import itertools
import json
import logging
import os
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LINE = re.compile(r"(?P<at>\d+\.\d+) (?P<pid>\d+) [A-Z]+ (?P<text>.*)")
# Seconds that vLLM reports itself.
TIMERS = {
    "weights_s": r"Loading weights took ([\d.]+) seconds",
    "load_model_s": r"Model loading took .* ([\d.]+) seconds",
    "dynamo_s": r"Dynamo bytecode transform time: ([\d.]+) s",
    "compile_s": r"torch\.compile took ([\d.]+) s in total",
    "compiled_from_cache_s": r"from the cache, took ([\d.]+) s",
    "compile_and_first_run_s": r"warmup run together took ([\d.]+) s",
    "first_run_s": r"Initial profiling/warmup run took ([\d.]+) s",
    "graphs_s": r"Graph capturing finished in ([\d.]+) secs",
    "init_engine_s": r"init engine .* took ([\d.]+) s",
}
MEMORY = {
    "weights_gib": r"Actual usage is ([\d.]+) GiB for consumed memory",
    "activation_gib": r"([\d.]+) GiB for peak activation",
    "graphs_gib": r"([\d.]+) GiB for CUDAGraph memory",
    "kv_cache_gib": r"Current kv cache memory in use is ([\d.]+) GiB",
}
# The compiled code that an engine used: its path holds the key of all settings that it depends on.
NOTES = re.compile(
    r"Directly load AOT compilation from path \S+|saved AOT compiled function to \S+|Using cache directory: \S+|"
    r"Compiling model again .*|We must use the `spawn`.*Reasons: .*|Using \S+ attention backend.*|Selected \S+ for \S+"
)
MAX_GAPS = 10
MODULES_THAT_LOG_EVERY_STEP = ("vllm.v1.worker.gpu_model_runner", "vllm.v1.worker.gpu.model_runner")
PROCESS_BEGINS, LOG_BEGINS = "process begins", "vllm sets up its log, nearly all is imported"


@dataclass(frozen=True)
class Line:
    at: float  # unix seconds
    pid: int
    text: str  # the place in vLLM, and the message


class StampedFile(logging.FileHandler):
    """Writes two lines first: when its process began, and when vLLM set up its log. Most modules are imported by then."""

    def __init__(self, filename: str) -> None:
        super().__init__(filename)
        now = time.time()
        with Path(filename).open("a", encoding="utf-8") as file:
            for at, text in ((process_began(), PROCESS_BEGINS), (now, LOG_BEGINS)):
                file.write(f"{at:.3f} {os.getpid()} INFO {text}\n")


def process_began() -> float:
    """Unix seconds, exact to some hundredths."""
    ticks = int(Path("/proc/self/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[19])
    uptime = float(Path("/proc/uptime").read_text(encoding="utf-8").split()[0])
    return time.time() - uptime + ticks / os.sysconf("SC_CLK_TCK")


def configure(log: Path, config: Path) -> dict[str, str]:
    """Writes a logging configuration. Returns the environment that makes vLLM use it in every process."""
    handler = {"()": "scripts.gpu.timeline.StampedFile", "filename": str(log), "formatter": "stamped"}
    quiet = {name: {"level": "INFO"} for name in MODULES_THAT_LOG_EVERY_STEP}
    settings = {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"stamped": {"format": "%(created).3f %(process)d %(levelname)s %(filename)s:%(lineno)d %(message)s"}},
        "handlers": {"file": handler},
        "loggers": {"vllm": {"handlers": ["file"], "level": "DEBUG", "propagate": False}} | quiet,
    }
    config.write_text(json.dumps(settings), encoding="utf-8")
    path = os.pathsep.join([str(Path.cwd()), *filter(None, [os.environ.get("PYTHONPATH")])])  # for processes that import this module
    return {"VLLM_LOGGING_CONFIG_PATH": str(config), "PYTHONPATH": path}


def read(log: Path) -> list[Line]:
    """Lines in order of time, without the further lines of a message."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.exists() else ""
    matched = filter(None, map(LINE.fullmatch, text.splitlines()))
    lines = (Line(float(match["at"]), int(match["pid"]), match["text"]) for match in matched)
    return sorted(lines, key=lambda line: line.at)


def between(lines: Sequence[Line], began: float, ended: float) -> list[Line]:
    return [line for line in lines if began <= line.at <= ended]


def timers(lines: Sequence[Line]) -> dict[str, float]:
    """Figures that vLLM reports itself: seconds of the parts of a start, and GiB of memory."""
    return {name: round(sum(numbers), 2) for name, pattern in (TIMERS | MEMORY).items() if (numbers := list(matches(lines, pattern)))}


def matches(lines: Sequence[Line], pattern: str) -> Iterator[float]:
    compiled = re.compile(pattern)
    return (float(match[1].rstrip(".")) for line in lines if (match := compiled.search(line.text)))


def notes(lines: Sequence[Line]) -> list[str]:
    """What vLLM logs about compiled code, about how it starts processes and about its kernels, each once."""
    return list(dict.fromkeys(match[0][:200] for line in lines if (match := NOTES.search(line.text))))


def processes(lines: Sequence[Line], began: float) -> list[dict[str, Any]]:
    """Seconds since `began` for each process that imported vLLM: its start, the end of its imports, its first and last line."""
    rows = []
    for pid in dict.fromkeys(line.pid for line in lines):
        own = [line for line in lines if line.pid == pid]
        messages = [line for line in own if line.text not in (PROCESS_BEGINS, LOG_BEGINS)]
        marks = {line.text: line.at for line in own}
        moments = {
            "process_begins_s": marks.get(PROCESS_BEGINS),
            "imported_s": marks.get(LOG_BEGINS),
            "first_line_s": messages[0].at if messages else None,
            "last_line_s": messages[-1].at if messages else None,
        }
        rows.append({name: round(at - began, 1) for name, at in moments.items() if at is not None})
    return rows


def gaps(lines: Sequence[Line], began: float, ended: float) -> list[dict[str, Any]]:
    """The longest times between two lines of the log, in order.

    All that takes long in a start is among them, even where vLLM has no timer for it."""
    points = [(began, "start"), *((line.at, f"{line.text[:70]} (process {line.pid})") for line in lines), (ended, "end")]
    rows = [
        {"at_s": round(at - began, 1), "seconds": round(after - at, 1), "after": text, "before": next_text}
        for (at, text), (after, next_text) in itertools.pairwise(points)
        if after - at >= 0.2
    ]
    longest = sorted(rows, key=lambda gap: -float(str(gap["seconds"])))[:MAX_GAPS]
    return sorted(longest, key=lambda gap: float(str(gap["at_s"])))
