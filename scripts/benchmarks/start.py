"""The row `start`: seconds of commands, and seconds from `bulkembed run` to its first batch.

The command `python -m scripts.benchmarks.start MODEL MAX_TOKENS QUESTION` prints the seconds to import the engine and load the model."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from typing import Annotated

import typer

from scripts.benchmarks import engine, job
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, model_folder, shape_of
from scripts.benchmarks.measuring import run_command, seconds_of

HEAVY_LIBRARIES = ("ray", "vllm", "torch")
PRINT_IMPORTED_MODULES = """
import json, sys
from bulkembed.cli.app import main
try:
    main(sys.argv[1:])
except SystemExit as leaving:
    if leaving.code:
        raise
finally:
    print(json.dumps(sorted({name.split(".")[0] for name in sys.modules})))
"""


def start(
    model: Annotated[list[str] | None, typer.Option(help="Model: minilm, 42M or 0.6B; repeatable. [default: minilm]")] = None,
    repeats: Annotated[int, typer.Option(help="Repeats of each command that embeds nothing.")] = 5,
    rounds: Annotated[int, typer.Option(help="Whole runs.")] = 3,
) -> Iterator[Row]:
    """Seconds of --help, plan, status, and to the first batch.

    `start_s` is the time from the command to the first batch without the model's load. Goals: 6 s, and 0.5 s for --help."""
    for name in model or ["minilm"]:
        runs, loads = [], []
        for _ in range(rounds):
            runs.append(small_run(name))
            loads.append(float(engine.ask("start", model_folder(name), shape_of(name).max_tokens, {})))
        yield from time_commands(name, repeats)
        first = [run.embedding_began - run.process.started for run in runs]
        yield {
            "command": "run",
            "model": name,
            "to_first_batch_s": round(statistics.median(first), 2),
            "load_s": round(statistics.median(loads), 2),
            "start_s": round(statistics.median(to_first_batch - load for to_first_batch, load in zip(first, loads, strict=True)), 2),
            "engine_dtype": engine_dtype(),
        }


def small_run(name: str) -> job.JobRun:
    shape = shape_of(name)
    return job.run(corpus(100), model_folder(name), "--max-tokens", str(shape.max_tokens), settings={})


def time_commands(name: str, repeats: int) -> Iterator[Row]:
    """Commands that embed nothing, on the output of the last run."""
    place = ["--source", str(corpus(100)), "--output", str(WORK / "out-job"), "--model", str(model_folder(name))]
    for title, arguments in {"--help": ["--help"], "plan": ["plan", *place], "status": ["status", "--output", place[3]]}.items():
        heavy = sorted(imported_modules(arguments).intersection(HEAVY_LIBRARIES))
        if heavy:
            raise SystemExit(f"bench: bulkembed {title} imports {', '.join(heavy)}, which takes seconds")
        command = [sys.executable, "-m", "bulkembed", *arguments]
        walls = [run_command(command, os.environ, lambda _pid: 0.0).wall for _ in range(repeats)]
        yield {"command": title, "seconds": round(statistics.median(walls), 3), "imports_heavy": False}


def imported_modules(arguments: list[str]) -> set[str]:
    """Top-level modules that a process has imported at the end of the command."""
    done = subprocess.run([sys.executable, "-c", PRINT_IMPORTED_MODULES, *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"bench: bulkembed {arguments[0]} failed:\n{done.stderr[-3000:]}")
    return set(json.loads(done.stdout.splitlines()[-1]))


def main(model: str, max_tokens: str, _question: str) -> None:
    print(json.dumps(seconds_of(lambda: engine.load(model, int(max_tokens)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
