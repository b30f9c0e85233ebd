"""The row `scale`: the driver's cost for each shard, planning many objects, and resuming when nearly all is done.

The command `python -m scripts.benchmarks.scale CONFIG` plans a run."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.records import Failure, LostAttempt, Receipt
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import run
from bulkembed.shards import Shard
from scripts.benchmarks import job
from scripts.benchmarks.material import WORK, Row, engine_dtype, model_folder, write_corpus
from scripts.benchmarks.measuring import peak_bytes, run_module

ROWS_PER_SHARD = 10
SETTINGS = {"max_tokens": 64, "engine": {"kind": "simulated", "dtype": engine_dtype()}, "shards": {"max_rows": ROWS_PER_SHARD}}


def scale(
    shards: Annotated[list[int] | None, typer.Option(help="Shards of a whole run; repeatable. [default: 100, 1000, 10000]")] = None,
    objects: Annotated[int, typer.Option(help="Tiny files to plan; 0 leaves this out.")] = 100_000,
    resume: Annotated[int, typer.Option(help="Shards of a run to resume; 0 leaves this out.")] = 10_000,
) -> Iterator[Row]:
    """The driver's cost for each shard, planning, resuming.

    Planning: 100,000 objects. Resuming: 99 % of 10,000 shards are published; goal: at most 20 s."""
    model = model_folder("42M")
    smallest: Row = {}
    for count in shards or [100, 1000, 10_000]:
        result = whole_run(model, count)
        smallest = smallest or result
        yield result | cost_per_shard(smallest, result)
    if objects:
        yield {"row": "plan", "objects": objects, **plan_in_child(config(model, many_files(objects), WORK / "out-none"))}
    if resume:
        yield resume_run(model, resume)


def whole_run(model: Path, shards: int) -> Row:
    driver = Driver()
    settings = {"engine.kind": "simulated", "engine.tokens_per_second": 1e9, "shards.max_rows": ROWS_PER_SHARD}
    whole = job.run(tiny_documents(shards), model, "--max-tokens", "64", settings=settings, sample=driver.sample, every=0.1)
    if len(whole.receipts) != shards:
        raise SystemExit(f"bench: the run made {len(whole.receipts)} shards, not {shards}")
    return {
        "row": "run",
        "shards": shards,
        "driver_cpu_s": round(driver.cpu, 2),
        "driver_mb": round(driver.memory / 1e6, 1),
        "wall_s": round(whole.process.wall, 1),
    }


def cost_per_shard(smallest: Row, result: Row) -> Row:
    """The driver's cost for each shard beyond those of the smallest run, so that a run's fixed cost does not count."""
    more = result["shards"] - smallest["shards"]
    if more <= 0:
        return {}
    return {
        "cpu_ms_per_shard": round((result["driver_cpu_s"] - smallest["driver_cpu_s"]) / more * 1e3, 2),
        "kb_per_shard": round((result["driver_mb"] - smallest["driver_mb"]) / more * 1e3, 2),
    }


class Driver:
    """Peaks of one process: CPU seconds and resident bytes."""

    def __init__(self) -> None:
        self.cpu = self.memory = 0.0

    def sample(self, pid: int) -> float:
        try:
            process = psutil.Process(pid)
            spent = process.cpu_times()
            self.cpu = max(self.cpu, spent.user + spent.system)
            self.memory = max(self.memory, process.memory_info().rss)
        except psutil.Error:
            return 0.0  # the process has ended; its last sample counts
        return self.memory


def tiny_documents(shards: int) -> Path:
    """One Parquet file."""
    place = WORK / f"scale-{shards}"
    if not place.exists():
        rows = shards * ROWS_PER_SHARD
        write_corpus(place, range(rows), [f"document {row}" for row in range(rows)], ROWS_PER_SHARD * 100)
    return place


def many_files(count: int) -> Path:
    """Parquet files of a few documents, a thousand in each folder."""
    place = WORK / f"distinct-objects-{count}"
    if not place.exists():
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for number in range(count):
            path = partial / f"{number // 1000:05d}" / f"{number:07d}.parquet"
            if number % 1000 == 0:
                path.parent.mkdir(parents=True)
            rows = range(number * ROWS_PER_SHARD, (number + 1) * ROWS_PER_SHARD)
            pq.write_table(pa.table({"id": rows, "text": [f"document {row}" for row in rows]}), path)
        partial.rename(place)
    return place


class StoppedExecutor(LocalExecutor):
    """Embeds so many shards at no cost, and stops as a killed run does."""

    def __init__(self, width: int, shards: int) -> None:
        super().__init__(SimulatedEmbedder(width, 1e12))
        self.shards = shards

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        return super().run(shards[: self.shards], job)


def resume_run(model: Path, shards: int) -> Row:
    """Plans a run after one that has published 99 % of its shards. Planning finds their documents by content, in the files."""
    out = WORK / "out-resume"
    shutil.rmtree(out, ignore_errors=True)
    cfg = config(model, tiny_documents(shards), out)
    done = shards * 99 // 100
    stopped = run(RunConfig.model_validate(cfg), lambda progress: None, StoppedExecutor(describe(str(model), None).width, done))
    if stopped.snapshot is not None or stopped.progress.shards != done:
        raise SystemExit(f"bench: the run to resume has made {stopped.progress.shards:,} shards, not {done:,}")
    result = plan_in_child(cfg)
    require_pending(result, shards - done)
    return {"row": "resume", "all_shards": shards, **result}


def require_pending(result: Row, expected: int) -> None:
    """Raises SystemExit where planning took shards for done, or for open, that are not."""
    if result["pending_shards"] != expected:
        raise SystemExit(f"bench: planning left {result['pending_shards']:,} shards to do, not {expected:,}")


def config(model: Path, source: Path, out: Path) -> dict[str, Any]:
    return {"source": str(source), "output": str(out), "model": str(model), **SETTINGS}


def plan_in_child(cfg: dict[str, Any]) -> Row:
    """Plans in a process of its own, whose peak memory is that of planning."""
    result: Row = json.loads(run_module("scale", json.dumps(cfg)).output)
    return result


def main(cfg: str) -> None:
    started = time.monotonic()
    _, plan = open_job(RunConfig.model_validate_json(cfg))
    seconds = time.monotonic() - started
    print(json.dumps({"pending_shards": len(plan.pending), "plan_s": round(seconds, 2), "peak_mb": round(peak_bytes() / 1e6)}))


if __name__ == "__main__":
    main(sys.argv[1])
