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

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding.hardware import has_gpu
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.vllm_engine import KV_BLOCK_TOKENS, kv_cache_bytes
from scripts.benchmarks import job
from scripts.benchmarks.engine import actor_environment
from scripts.benchmarks.material import WORK, Row, corpus, engine_dtype, measured, model_folder, shape_of, synthetic_corpus


class Corpus(StrEnum):
    DEMO = "demo"
    SYNTHETIC = "synthetic"


def ratio(
    model: Annotated[list[str] | None, typer.Option(help="minilm, 42M, 0.6B or 4B; repeatable. [default: 42M]")] = None,
    kind: Annotated[Corpus, typer.Option("--corpus", help="Synthetic: lognormal lengths, see material.py.")] = Corpus.DEMO,
    documents: Annotated[int | None, typer.Option(help="[default: 4,000 for minilm, 12,000 for 42M, 200 for 0.6B and 4B]")] = None,
    shard_rows: Annotated[int, typer.Option(help="At most; never less than 4 shards.")] = 1000,
    rounds: int = 3,
) -> Iterator[Row]:
    """The job's steady tokens/s over those of the best plain script, and where the job's wall went."""
    for name in model or ["42M"]:
        count = documents or shape_of(name).documents
        source = corpus(count) if kind == Corpus.DEMO else synthetic_corpus(count, name)
        rows = max(1, min(shard_rows, count // 4))
        turns = [(plain(name, source, rows), run_job(name, source, rows)) for _ in range(rounds)]
        yield {"model": name, **compared(turns), "corpus": kind.value, "documents": count, "engine_dtype": engine_dtype()}


def plain(name: str, source: Path, shard_rows: int) -> Row:
    """What scripts/benchmarks/plain.py prints, and its peak memory."""
    out = WORK / "out-plain"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "scripts/benchmarks/plain.py", str(model_folder(name)), str(source), str(out)]
    command += [str(shard_rows), shape_of(name).dims, json.dumps(settings_of(name))]
    # Bound to cores, which suits a process that has the host to itself: up to 5 % faster than "nobind".
    binding = {} if has_gpu() else {"VLLM_CPU_OMP_THREADS_BIND": ",".join(map(str, sorted(os.sched_getaffinity(0))))}
    printed, memory, _ = measured(command, os.environ | actor_environment() | binding)
    found: Row = json.loads(printed.splitlines()[-1])
    return found | {"memory": memory}


def settings_of(name: str) -> dict[str, Any]:
    """Of `vllm.LLM`: what the job's engine has by default."""
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


def run_job(name: str, source: Path, shard_rows: int, settings: dict[str, Any] | None = None) -> job.Ran:
    flags = ["--keep-column", "text", *job.flags(name)]
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
        "engine_calls_tokens_per_s": round(statistics.median(script["tokens"] / script["engine_seconds"] for script, _ in turns)),
        "job_tokens_per_s": round(statistics.median(rates)),
        "ratio": round(statistics.median(ratios), 3),
        "ratios": [round(each, 3) for each in ratios],
        "job_documents_per_s": round(statistics.median(ran.documents / ran.embedding for _, ran in turns), 1),
        "job_wall_s": round(statistics.median(ran.process.wall for _, ran in turns), 1),
        **{name: round(statistics.median(each[name] for each in phases), 1) for name in phases[0]},
        "job_peak_gb": round(max(ran.process.peak for _, ran in turns) / 1e9, 2),
        "plain_peak_gb": round(max(script["memory"] for script, _ in turns) / 1e9, 2),
    }
