"""The job over the best plain script: the same documents, the same engine settings, in turns."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import sys
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.config import EngineConfig
from pipeline.embedder import cache_bytes, environment
from pipeline.model import describe
from scripts.benchmarks import job
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, measured, model_folder, shape_of, synthetic_corpus


class Corpus(StrEnum):
    DEMO = "demo"
    SYNTHETIC = "synthetic"


def ratio(
    model: Annotated[list[str] | None, typer.Option(help="minilm, small or 0.6B; repeatable. [default: small]")] = None,
    kind: Annotated[Corpus, typer.Option("--corpus", help="Synthetic: lognormal lengths, see material.py.")] = Corpus.DEMO,
    documents: Annotated[int | None, typer.Option(help="[default: 4,000 for minilm, 12,000 for small, 200 for 0.6B]")] = None,
    shard_rows: Annotated[int, typer.Option(help="At most; never less than 4 shards.")] = 1000,
    rounds: int = 3,
) -> Iterator[Row]:
    """The job's steady tokens/s over those of the best plain script, and where the job's wall went."""
    for name in model or ["small"]:
        count = documents or shape_of(name).documents
        source = corpus(count) if kind == Corpus.DEMO else synthetic_corpus(count, name)
        rows = max(1, min(shard_rows, count // 4))
        turns = [(plain(name, source, rows), run_job(name, source, rows)) for _ in range(rounds)]
        yield {"model": name, **compared(turns), "corpus": kind.value, "documents": count, "engine_dtype": engine_dtype()}


def plain(name: str, source: Path, shard_rows: int) -> Row:
    """tokens, seconds, documents of scripts/benchmarks/plain.py, and its peak memory."""
    model, shape, engine = model_folder(name), shape_of(name), EngineConfig(dtype=engine_dtype())
    out, cores = WORK / "out-plain", os.cpu_count() or 1
    shutil.rmtree(out, ignore_errors=True)
    # Bound to cores, which suits a process that has the host to itself: up to 5 % faster than "nobind".
    settings = environment(engine, cores) | {"VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}"}
    command = [sys.executable, "scripts/benchmarks/plain.py", str(model), str(source), str(out), str(shape.max_tokens)]
    command += [str(engine.step_tokens), str(shard_rows), shape.dims, engine.dtype]
    command += [str(cache_bytes(describe(str(model), None), shape.max_tokens, engine))]
    printed, memory, _ = measured(command, os.environ | settings)
    found: Row = json.loads(printed.splitlines()[-1])
    return found | {"memory": memory}


def run_job(name: str, source: Path, shard_rows: int, settings: dict[str, Any] | None = None) -> job.Ran:
    shape = shape_of(name)
    flags = ["--keep-column", "text", "--dims", shape.dims, "--allow-untrained-dims", "--max-tokens", str(shape.max_tokens)]
    return job.run(source, model_folder(name), *flags, settings={"shards.max_rows": shard_rows} | (settings or {}))


def compared(turns: list[tuple[Row, job.Ran]]) -> Row:
    """Medians over the rounds; the ratio is the median of the rounds' own ratios."""
    if any(script["tokens"] != ran.tokens for script, ran in turns):
        raise SystemExit("bench: the job and the plain script did not embed the same tokens")
    ceilings = [script["tokens"] / script["seconds"] for script, _ in turns]
    rates = [ran.rate for _, ran in turns]
    ratios = [rate / ceiling for rate, ceiling in zip(rates, ceilings, strict=True)]
    phases = [ran.phases() for _, ran in turns]
    return {
        "ceiling_tokens_per_s": round(statistics.median(ceilings)),
        "job_tokens_per_s": round(statistics.median(rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(each, 3) for each in ratios],
        "job_documents_per_s": round(statistics.median(ran.documents / ran.embedding for _, ran in turns), 1),
        "job_wall_s": round(statistics.median(ran.process.wall for _, ran in turns), 1),
        **{name: round(statistics.median(each[name] for each in phases), 1) for name in phases[0]},
        "job_peak_gb": round(max(ran.process.peak for _, ran in turns) / 1e9, 2),
        "plain_peak_gb": round(max(script["memory"] for script, _ in turns) / 1e9, 2),
    }
