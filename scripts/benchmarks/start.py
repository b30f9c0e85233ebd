"""How long until something happens.

As a command of its own (python -m scripts.benchmarks.start MODEL MAX_TOKENS QUESTION): seconds to import the engine and load the model."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Annotated

import typer

from scripts.benchmarks import engine, job
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, model_folder, shape_of, watched

HEAVY = ("ray", "vllm", "torch")
IMPORTED = """
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
    model: Annotated[list[str] | None, typer.Option(help="minilm, 42M or 0.6B; repeatable. [default: minilm]")] = None,
    repeats: Annotated[int, typer.Option(help="Of every command that only looks.")] = 5,
    rounds: Annotated[int, typer.Option(help="Of whole runs.")] = 3,
) -> Iterator[Row]:
    """Seconds of --help, plan, status; and from the command to the first batch without loading the model. Goal: at most 6."""
    for name in model or ["minilm"]:
        runs, loads = [], []
        for _ in range(rounds):
            runs.append(small_run(name))
            loads.append(float(engine.ask("start", model_folder(name), shape_of(name).max_tokens, {})))
        yield from looks(name, repeats)
        first = [ran.began - ran.process.started for ran in runs]
        yield {
            "command": "run",
            "model": name,
            "to_first_batch_s": round(statistics.median(first), 2),
            "load_s": round(statistics.median(loads), 2),
            "start_s": round(statistics.median(all_of_it - load for all_of_it, load in zip(first, loads, strict=True)), 2),
            "engine_dtype": engine_dtype(),
        }


def small_run(name: str) -> job.Ran:
    shape = shape_of(name)
    return job.run(corpus(100), model_folder(name), "--max-tokens", str(shape.max_tokens), settings={})


def looks(name: str, repeats: int) -> Iterator[Row]:
    """Commands that embed nothing, beside the output of the run before."""
    place = ["--source", str(corpus(100)), "--output", str(WORK / "out-job"), "--model", str(model_folder(name))]
    for title, arguments in {"--help": ["--help"], "plan": ["plan", *place], "status": ["status", "--output", place[3]]}.items():
        heavy = sorted(imported(arguments).intersection(HEAVY))
        if heavy:
            raise SystemExit(f"bench: bulkembed {title} imports {', '.join(heavy)}, which takes seconds")
        command = [sys.executable, "-m", "bulkembed", *arguments]
        walls = [watched(command, os.environ, lambda _pid: 0.0).wall for _ in range(repeats)]
        yield {"command": title, "seconds": round(statistics.median(walls), 3), "imports_heavy": False}


def imported(arguments: list[str]) -> set[str]:
    """Top-level modules of a process that has run the command."""
    found = subprocess.run([sys.executable, "-c", IMPORTED, *arguments], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(f"bench: bulkembed {arguments[0]} failed:\n{found.stderr[-3000:]}")
    return set(json.loads(found.stdout.splitlines()[-1]))


def main(model: str, max_tokens: str, _question: str) -> None:
    started = time.perf_counter()
    engine.load(model, int(max_tokens))
    print(json.dumps(time.perf_counter() - started))


if __name__ == "__main__":
    main(*sys.argv[1:])
