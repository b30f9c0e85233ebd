"""What a shard costs the driver, what many objects cost to plan, and what resuming costs when nearly everything is done.

As a command of its own (python -m scripts.benchmarks.scale CONFIG): plans a run."""

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
from scripts.benchmarks.material import WORK, Row, child, engine_dtype, model_folder, write_corpus

ROWS_PER_SHARD = 10
GIVEN = {"max_tokens": 64, "engine": {"kind": "simulated", "dtype": engine_dtype()}, "shards": {"max_rows": ROWS_PER_SHARD}}


def scale(
    shards: Annotated[list[int] | None, typer.Option(help="Of whole runs; repeatable. [default: 100, 1000, 10000]")] = None,
    objects: Annotated[int, typer.Option(help="Tiny files of a corpus to plan; 0 for none.")] = 100_000,
    resume: Annotated[int, typer.Option(help="Shards of the resumed run; 0 for none.")] = 100_000,
) -> Iterator[Row]:
    """What a shard costs the driver; planning many objects; resuming with 99 % done. Goal: at most 20 s for 100,000 shards."""
    model = model_folder("42M")
    first: Row = {}
    for count in shards or [100, 1000, 10_000]:
        result = whole_run(model, count)
        first = first or result
        yield result | beyond(first, result)
    if objects:
        yield {"row": "plan", "objects": objects, **planned(config(model, many_files(objects), WORK / "out-none"))}
    if resume:
        yield resumed(model, resume)


def whole_run(model: Path, shards: int) -> Row:
    driver = Driver()
    settings = {"engine.kind": "simulated", "engine.tokens_per_second": 1e9, "shards.max_rows": ROWS_PER_SHARD}
    ran = job.run(tiny_documents(shards), model, "--max-tokens", "64", settings=settings, sample=driver.sample, every=0.1)
    if len(ran.receipts) != shards:
        raise SystemExit(f"bench: {len(ran.receipts)} shards, not {shards}")
    return {
        "row": "run",
        "shards": shards,
        "driver_cpu_s": round(driver.cpu, 2),
        "driver_mb": round(driver.memory / 1e6, 1),
        "wall_s": round(ran.process.wall, 1),
    }


def beyond(first: Row, result: Row) -> Row:
    """What each shard costs the driver beyond those of the smallest run: without what any run costs."""
    more = result["shards"] - first["shards"]
    if more <= 0:
        return {}
    return {
        "cpu_ms_per_shard": round((result["driver_cpu_s"] - first["driver_cpu_s"]) / more * 1e3, 2),
        "kb_per_shard": round((result["driver_mb"] - first["driver_mb"]) / more * 1e3, 2),
    }


class Driver:
    """Most CPU seconds and resident bytes of one process."""

    def __init__(self) -> None:
        self.cpu = self.memory = 0.0

    def sample(self, pid: int) -> float:
        try:
            process = psutil.Process(pid)
            spent = process.cpu_times()
            self.cpu = max(self.cpu, spent.user + spent.system)
            self.memory = max(self.memory, process.memory_info().rss)
        except psutil.Error:
            return 0.0  # it has ended: what it last had stands
        return self.memory


def tiny_documents(shards: int) -> Path:
    """One Parquet file."""
    place = WORK / f"scale-{shards}"
    if not place.exists():
        rows = shards * ROWS_PER_SHARD
        write_corpus(place, range(rows), [f"document {row}" for row in range(rows)], ROWS_PER_SHARD * 100)
    return place


def many_files(count: int) -> Path:
    """Parquet files of a few documents, a thousand to a folder; all the same but for their names, which is all that planning looks at."""
    place = WORK / f"objects-{count}"
    if not place.exists():
        made = pa.BufferOutputStream()
        pq.write_table(pa.table({"id": range(ROWS_PER_SHARD), "text": [f"document {row}" for row in range(ROWS_PER_SHARD)]}), made)
        content = made.getvalue().to_pybytes()
        partial = place.with_name(f"{place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for number in range(count):
            path = partial / f"{number // 1000:05d}" / f"{number:07d}.parquet"
            if number % 1000 == 0:
                path.parent.mkdir(parents=True)
            path.write_bytes(content)
        partial.rename(place)
    return place


def resumed(model: Path, shards: int) -> Row:
    """99 % of the shards have receipts, all like that of one real shard."""
    out = WORK / "out-resume"
    shutil.rmtree(out, ignore_errors=True)
    settings = {"engine.kind": "simulated", "shards.max_rows": ROWS_PER_SHARD}
    example = job.run(tiny_documents(10), model, "--max-tokens", "64", settings=settings).receipts[0]
    cfg = config(model, tiny_documents(shards), out)
    opened, plan = open_job(RunConfig.model_validate(cfg))
    opened.ledger.write_run(opened.carried, opened.cfg.remembered(), opened.provenance)
    folder = Path(opened.ledger.receipt("x")).parent
    folder.mkdir(parents=True)
    done = plan.pending[: shards * 99 // 100]
    for shard in done:
        (folder / f"{shard.id}.json").write_bytes(orjson.dumps(replace(example, shard=shard.id).to_dict()))
    found = planned(cfg)
    if found["pending_shards"] != len(plan.pending) - len(done):
        raise SystemExit(f"bench: {found['shards']} shards are left")
    return {"row": "resume", "all_shards": len(plan.pending), **found}


def config(model: Path, source: Path, out: Path) -> dict[str, Any]:
    return {"source": str(source), "output": str(out), "model": str(model), **GIVEN}


def planned(cfg: dict[str, Any]) -> Row:
    """In a process of its own, whose peak memory is that of planning."""
    printed, _, _ = child("scale", json.dumps(cfg))
    found: Row = json.loads(printed)
    return found


def main(cfg: str) -> None:
    started = time.monotonic()
    _, plan = open_job(RunConfig.model_validate_json(cfg))
    seconds = time.monotonic() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    print(json.dumps({"pending_shards": len(plan.pending), "plan_s": round(seconds, 2), "peak_mb": peak}))


if __name__ == "__main__":
    main(sys.argv[1])
