"""What a shard costs the driver, and what resuming costs when nearly everything is done."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import RunConfig
from pipeline.ledger import dataset
from pipeline.run import open_job
from pipeline.storage import Store

ROWS_PER_SHARD = 10


def corpus(work: Path, shards: int) -> Path:
    """One Parquet file of tiny documents."""
    place = work / f"scale-{shards}"
    if not place.exists():
        place.mkdir(parents=True)
        rows = shards * ROWS_PER_SHARD
        table = pa.table({"id": range(rows), "text": [f"document {row}" for row in range(rows)]})
        pq.write_table(table, place / "a.parquet", row_group_size=ROWS_PER_SHARD * 100)
    return place


def run(work: Path, model: str, shards: int) -> dict[str, Any]:
    """A whole run of so many shards: the driver's CPU seconds for each, and its memory."""
    source, out = corpus(work, shards), work / "out-scale"
    shutil.rmtree(out, ignore_errors=True)
    command = [
        sys.executable,
        "-m",
        "pipeline",
        "run",
        "--source",
        str(source),
        "--output",
        str(out),
        "--model",
        model,
        "--max-tokens",
        "64",
    ]
    command += ["--set", "engine.kind=simulated", "--set", "engine.tokens_per_second=1e9", "--set", f"shards.max_rows={ROWS_PER_SHARD}"]
    started = time.monotonic()
    process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    cpu = memory = 0.0
    while process.poll() is None:
        try:
            spent = process.cpu_times()
            cpu, memory = max(cpu, spent.user + spent.system), max(memory, process.memory_info().rss)
        except psutil.NoSuchProcess:
            break
        time.sleep(0.1)
    _, snapshot = dataset(Store(), str(out))
    if len(snapshot.shards) != shards:
        raise SystemExit(f"bench: {len(snapshot.shards)} shards, not {shards}")
    return {
        "shards": shards,
        "driver_cpu_s": round(cpu, 1),
        "driver_mb": round(memory / 1e6),
        "wall_s": round(time.monotonic() - started, 1),
    }


def resume(work: Path, model: str, shards: int) -> dict[str, Any]:
    """Seconds and memory to plan what is left where 99 % of the shards have receipts."""
    source, out = corpus(work, shards), work / "out-resume"
    values = {"source": str(source), "output": str(out), "model": model, "max_tokens": 64, "engine": {"kind": "simulated"}}
    cfg = RunConfig.model_validate(values | {"shards": {"max_rows": ROWS_PER_SHARD}})
    shutil.rmtree(out, ignore_errors=True)
    job, plan = open_job(cfg)
    job.ledger.write_run(job.carried, job.cfg.remembered(), job.provenance)
    ledger, snapshot = dataset(Store(), str(work / "out-scale"))
    (example,) = ledger.read_receipts(snapshot.shards[:1])
    folder = Path(job.ledger.receipt("x")).parent
    folder.mkdir(parents=True)
    for shard in plan.pending[: shards * 99 // 100]:
        (folder / f"{shard.id}.json").write_bytes(orjson.dumps(replace(example, shard=shard.id).to_dict()))
    started = time.monotonic()
    _, again = open_job(cfg)
    seconds = time.monotonic() - started
    if len(again.pending) != shards - shards * 99 // 100:
        raise SystemExit(f"bench: {len(again.pending)} shards are left")
    return {"resumed_shards": shards, "plan_s": round(seconds, 1), "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024}
