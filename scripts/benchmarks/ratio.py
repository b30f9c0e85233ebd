"""The row `ratio`: the job over the best plain script. Both have the same documents and engine settings, and alternate."""

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

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding.hardware import has_gpu
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.vllm_engine import KV_BLOCK_TOKENS, kv_cache_bytes
from scripts.benchmarks import job
from scripts.benchmarks.engine import actor_environment
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, model_folder, shape_of, synthetic_corpus
from scripts.benchmarks.measuring import run_command


class Corpus(StrEnum):
    DEMO = "demo"
    SYNTHETIC = "synthetic"


def ratio(
    model: Annotated[list[str] | None, typer.Option(help="Model: minilm, 42M, 0.6B or 4B; repeatable. [default: 42M]")] = None,
    kind: Annotated[Corpus, typer.Option("--corpus", help="Python's documentation, or documents of lognormal lengths.")] = Corpus.DEMO,
    documents: Annotated[int | None, typer.Option(help="Documents. [default: 4,000 for minilm, 12,000 for 42M, else 200]")] = None,
    shard_rows: Annotated[int, typer.Option(help="Rows of a shard at most; there are always at least 4 shards.")] = 1000,
    rounds: Annotated[int, typer.Option(help="Rounds of both, alternating.")] = 3,
) -> Iterator[Row]:
    """The job's tokens/s over those of the best plain script.

    The row also has the parts of the job's wall time. Goal: 0.92 for minilm and 42M, 0.97 for 0.6B."""
    for name in model or ["42M"]:
        count = documents or shape_of(name).documents
        source = corpus(count) if kind == Corpus.DEMO else synthetic_corpus(count, name)
        rows = max(1, min(shard_rows, count // 4))
        pairs = [(run_plain(name, source, rows), run_job(name, source, rows)) for _ in range(rounds)]
        yield {"model": name, **compare(pairs), "corpus": kind.value, "documents": count, "engine_dtype": engine_dtype()}


def run_plain(name: str, source: Path, shard_rows: int) -> Row:
    """The output of scripts/benchmarks/plain.py, and its peak memory."""
    out = WORK / "out-plain"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "scripts/benchmarks/plain.py", str(model_folder(name)), str(source), str(out)]
    command += [str(shard_rows), shape_of(name).dims, json.dumps(settings_of(name))]
    # A process that has the host to itself is up to 5 % faster with threads bound to cores.
    binding = {} if has_gpu() else {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
    run = run_command(command, os.environ | actor_environment() | binding)
    result: Row = json.loads(run.output.splitlines()[-1])
    return result | {"memory": int(run.peak)}


def settings_of(name: str) -> dict[str, Any]:
    """The arguments of `vllm.LLM` that the job's engine has by default."""
    shape, engine = shape_of(name), EngineConfig(dtype=engine_dtype())
    settings: dict[str, Any] = {
        "runner": "pooling",
        "dtype": engine.dtype,
        "max_model_len": shape.max_tokens,
        "max_num_batched_tokens": max(engine.step_tokens, shape.max_tokens),
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    if not has_gpu():
        memory = kv_cache_bytes(describe(str(model_folder(name)), None), shape.max_tokens, engine)
        settings |= {"enforce_eager": True, "kv_cache_memory_bytes": memory, "block_size": KV_BLOCK_TOKENS}
    return settings


def run_job(name: str, source: Path, shard_rows: int, settings: dict[str, Any] | None = None) -> job.JobRun:
    flags = ["--keep-column", "text", *job.flags(name)]
    return job.run(source, model_folder(name), *flags, settings={"shards.max_rows": shard_rows} | (settings or {}))


def compare(pairs: list[tuple[Row, job.JobRun]]) -> Row:
    """Medians over the rounds. The ratio is the median of the rounds' own ratios."""
    if any(script["tokens"] != run.tokens for script, run in pairs):
        raise SystemExit("bench: the job and the plain script did not embed the same tokens")
    ceilings = [script["tokens"] / script["seconds"] for script, _ in pairs]
    rates = [run.rate for _, run in pairs]
    ratios = [rate / ceiling for rate, ceiling in zip(rates, ceilings, strict=True)]
    phases = [run.phases() for _, run in pairs]
    return {
        "ceiling_tokens_per_s": round(statistics.median(ceilings)),
        "engine_calls_tokens_per_s": round(statistics.median(script["tokens"] / script["engine_seconds"] for script, _ in pairs)),
        "job_tokens_per_s": round(statistics.median(rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(ratio, 3) for ratio in ratios],
        "job_documents_per_s": round(statistics.median(run.documents / run.embedding_seconds for _, run in pairs), 1),
        "job_wall_s": round(statistics.median(run.process.wall for _, run in pairs), 1),
        **{name: round(statistics.median(phase[name] for phase in phases), 1) for name in phases[0]},
        "job_peak_gb": round(max(run.process.peak for _, run in pairs) / 1e9, 2),
        "plain_peak_gb": round(max(script["memory"] for script, _ in pairs) / 1e9, 2),
    }
