"""The row `tune`: whether `bulkembed tune` finds the fastest setting of an exhaustive grid."""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from functools import reduce
from pathlib import Path
from typing import Annotated, Any

import typer

from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import merge
from bulkembed.tuning import session
from bulkembed.tuning.search import DEFAULT_MALLOC, TCMALLOC, Changes, Trial
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, model_folder, shape_of
from scripts.benchmarks.measuring import run_command


def tune(
    model: Annotated[list[str] | None, typer.Option(help="Model: minilm, 42M or 0.6B; repeatable. [default: minilm]")] = None,
    budget: Annotated[float, typer.Option(help="Seconds that tune may take.")] = 600,
    documents: Annotated[int, typer.Option(help="Documents of the sample, from the demo corpus.")] = 2000,
    seconds: Annotated[float, typer.Option(help="Seconds of each measurement, without the load.")] = 8,
    rounds: Annotated[int, typer.Option(help="Rounds of tune's pick and the grid's best, alternating.")] = 3,
) -> Iterator[Row]:
    """The setting that tune picks, over the best of a full grid.

    Both are measured as tune measures. Goal: at least 0.97."""
    for name in model or ["minilm"]:
        pick = run_tune(name, budget, documents)
        with session.open_host(config(name, documents), documents) as host:
            trials = [host.measure(changes, seconds) for changes in grid()]
            for trial in trials:
                yield {"model": name, "setting": trial.name, "tokens_per_s": round(trial.rate), "problem": trial.problem}
            best = max(trials, key=lambda trial: trial.rate)
            # The best of many trials is partly luck, so both are measured once more, alternating.
            pairs = [(host.measure(pick, seconds), host.measure(best.changes, seconds)) for _ in range(rounds)]
        yield {"model": name, **compare(pick, best, pairs), "engine_dtype": engine_dtype(), "budget_s": budget}


def grid() -> list[Changes]:
    """Every combination of step tokens, allocator and binding."""
    steps: list[Changes] = [{"step_tokens": 2048}, {"step_tokens": 8192}]
    allocators: list[Changes] = [{}, {"env": DEFAULT_MALLOC}, *({"env": {"LD_PRELOAD": str(path)}} for path in tcmalloc_paths())]
    cores = sorted(os.sched_getaffinity(0))
    bindings: list[Changes] = [{}, {"env": {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, cores))}}]
    return [reduce(merge, parts) for parts in itertools.product(steps, allocators, bindings)]


def tcmalloc_paths() -> list[Path]:
    return sorted(Path("/").glob(TCMALLOC))


def run_tune(name: str, budget: float, documents: int) -> Changes:
    """The changes of the [engine] table that `bulkembed tune` writes."""
    cfg = config(name, documents)
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "engine.toml"
        command = [sys.executable, "-m", "bulkembed", "tune", "--source", cfg.source_text, "--model", cfg.model, "--budget", str(budget)]
        command += ["--documents", str(documents), "--max-tokens", str(cfg.max_tokens), "--write", str(written)]
        run_command([*command, "--set", f"engine.dtype={cfg.engine.dtype}"], os.environ)
        changes: Changes = tomllib.loads(written.read_text(encoding="utf-8"))["engine"]
    return changes


def config(name: str, documents: int) -> RunConfig:
    values: dict[str, Any] = {"source": str(corpus(documents)), "output": str(WORK / "out-tune"), "model": str(model_folder(name))}
    return RunConfig.model_validate(values | {"max_tokens": shape_of(name).max_tokens, "engine": {"dtype": engine_dtype()}})


def compare(pick: Changes, best: Trial, pairs: list[tuple[Trial, Trial]]) -> Row:
    problems = [trial.problem for pair in pairs for trial in pair if trial.problem]
    if problems:
        raise SystemExit(f"bench: a setting that had been measured failed: {problems[0]}")
    ratios = [ours.rate / theirs.rate for ours, theirs in pairs]
    return {
        "pick": Trial(pick, 0).name,
        "best_of_grid": best.name,
        "pick_tokens_per_s": round(statistics.median(ours.rate for ours, _ in pairs)),
        "best_tokens_per_s": round(statistics.median(theirs.rate for _, theirs in pairs)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
    }
