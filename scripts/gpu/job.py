"""The row `job`: the whole job beside the engine alone, and the parts of its start."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from scripts.benchmarks import job as benchmark
from scripts.gpu import timeline
from scripts.gpu.child import RowInput, Task
from scripts.gpu.corpus import load_ids
from scripts.gpu.flops import flops
from scripts.gpu.plan import Group, Result

SHARDS = 8  # each a single call of the engine


def prepare(group: Group, task: Task) -> RowInput:
    return RowInput(task, group)


def job(row_input: RowInput) -> Result:
    """The rate of `bulkembed run` over the engine's own with the same settings, its wall time and the parts of its start."""
    task, shape = row_input.task, row_input.group.shape
    lengths = np.array(list(map(len, load_ids(task.work / "corpus.npz"))), np.int64)
    settings = {
        "engine.step_tokens": task.step_tokens,
        "engine.call_tokens": task.call_tokens,
        "shards.max_rows": -(-len(lengths) // SHARDS),
    }
    width = task.sizes(shape)["hidden_size"]
    flags = ["--dims", f"{width},{width // 2}", "--allow-untrained-dims", "--max-tokens", str(task.max_tokens)]
    try:
        run = benchmark.run(task.work / "corpus", task.folder(shape), *flags, settings=settings)
    except SystemExit as error:
        raise RuntimeError(str(error)) from error
    if run.tokens != lengths.sum():
        raise RuntimeError(f"the job embedded {run.tokens} tokens, the corpus has {lengths.sum()}")
    engine = task.known.get("engine-32k", {}).get("tokens_per_s")
    began = run.process.started
    lines = timeline.between(timeline.read(Path(os.environ["GPU_CHECK_TIMELINE"])), began, run.embedding_began)
    return {
        "tokens_per_s": round(run.rate),
        **({"over_engine": round(run.rate / engine, 3)} if engine else {}),
        "tflops": flops(task.sizes(shape), lengths) / run.embedding_seconds / 1e12,
        "start_s": round(run.embedding_began - began, 1),
        "wall_s": round(run.process.wall, 1),
        **{name: round(seconds, 1) for name, seconds in run.phases().items()},
        **timeline.timers(lines),
        "job_peak_gb": round(run.process.peak / 1e9, 2),
        "notes": timeline.notes(lines),
        "processes": timeline.processes(lines, began),
        "gaps": timeline.gaps(lines, began, run.embedding_began),
        "documents": run.documents,
    }


ROWS: dict[str, Callable[[RowInput], Result]] = {"job": job}
