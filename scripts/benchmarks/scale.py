"""The row `scale`: the driver's cost for each shard, planning many objects, and resuming when nearly all is done.

The command `python -m scripts.benchmarks.scale CONFIG` plans a run."""

from __future__ import annotations

import json
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import orjson
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bulkembed.config.run_config import RunConfig
from bulkembed.runs.lookup import open_job
from scripts.benchmarks import job
from scripts.benchmarks.material import WORK, Row, engine_dtype, model_folder, write_corpus
from scripts.benchmarks.measuring import run_module

ROWS_PER_SHARD = 10
SETTINGS = {"max_tokens": 64, "engine": {"kind": "simulated", "dtype": engine_dtype()}, "shards": {"max_rows": ROWS_PER_SHARD}}


def scale(
    shards: Annotated[list[int] | None, typer.Option(help="Shards of a whole run; repeatable. [default: 100, 1000, 10000]")] = None,
    objects: Annotated[int, typer.Option(help="Tiny files to plan; 0 leaves this out.")] = 100_000,
    resume: Annotated[int, typer.Option(help="Shards of a run to resume; 0 leaves this out.")] = 100_000,
) -> Iterator[Row]:
    """The driver's cost for each shard, planning, resuming.

    Planning: 100,000 objects. Resuming: 99 % of 100,000 shards are done; goal: at most 20 s."""
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
    run = job.run(tiny_documents(shards), model, "--max-tokens", "64", settings=settings, sample=driver.sample, every=0.1)
    if len(run.receipts) != shards:
        raise SystemExit(f"bench: the run made {len(run.receipts)} shards, not {shards}")
    return {
        "row": "run",
        "shards": shards,
        "driver_cpu_s": round(driver.cpu, 2),
        "driver_mb": round(driver.memory / 1e6, 1),
        "wall_s": round(run.process.wall, 1),
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
    """Equal Parquet files of a few documents, a thousand in each folder."""
    place = WORK / f"objects-{count}"
    if not place.exists():
        buffer = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": range(ROWS_PER_SHARD), "text": [f"document {row}" for row in range(ROWS_PER_SHARD)]}), buffer)
        content = buffer.getvalue().to_pybytes()
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for number in range(count):
            path = partial / f"{number // 1000:05d}" / f"{number:07d}.parquet"
            if number % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(content)
        partial.rename(place)
    return place


def resume_run(model: Path, shards: int) -> Row:
    """Plans a run of which 99 % of the shards have receipts. The receipts are copies of one real receipt."""
    out = WORK / "out-resume"
    shutil.rmtree(out, ignore_errors=True)
    settings = {"engine.kind": "simulated", "shards.max_rows": ROWS_PER_SHARD}
    example = job.run(tiny_documents(10), model, "--max-tokens", "64", settings=settings).receipts[0]
    cfg = config(model, tiny_documents(shards), out)
    opened, plan = open_job(RunConfig.model_validate(cfg))
    opened.ledger.write_run_record(opened.carried, opened.provenance)
    folder = Path(opened.ledger.receipt_uri("x")).parent
    folder.mkdir(parents=True)
    done = plan.pending[: shards * 99 // 100]
    for shard in done:
        (folder / f"{shard.id}.json").write_bytes(orjson.dumps(replace(example, shard=shard.id).to_dict()))
    result = plan_in_child(cfg)
    require_pending(result, len(plan.pending) - len(done))
    return {"row": "resume", "all_shards": len(plan.pending), **result}


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
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"pending_shards": len(plan.pending), "plan_s": round(seconds, 2), "peak_mb": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
