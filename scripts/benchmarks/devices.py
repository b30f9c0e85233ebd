"""The row `devices`: how many simulated devices one host keeps busy. Each is a process of its own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any

import numpy as np
import psutil
import typer

from bulkembed.records import Receipt
from scripts.benchmarks import job, simulated
from scripts.benchmarks.material import Row

SHARD_ROWS = 128  # a few seconds of a device, so that the last shards leave devices idle for a short time only
TOKENS_PER_DOCUMENT = 300  # about


def devices(
    count: Annotated[list[int] | None, typer.Option("--devices", help="Devices; repeatable. [default: 1, 2, 4, 8, 16, 32]")] = None,
    rate: Annotated[float, typer.Option(help="Tokens/s of one device.")] = 20_000,
    seconds: Annotated[float, typer.Option(help="Seconds of work for each device.")] = 60,
) -> Iterator[Row]:
    """How many simulated devices one host keeps busy.

    For 1 to 32 devices: the share of time that they are busy, and how busy the host's cores are. Goal: 0.95 until the cores are full."""
    folder = simulated.model()
    for number in count or [1, 2, 4, 8, 16, 32]:
        documents = max(SHARD_ROWS, round(number * rate * seconds / TOKENS_PER_DOCUMENT))
        cores = Cores()
        settings = {**settings_of(number, rate), "shards.max_rows": SHARD_ROWS}
        run = job.run(simulated.corpus(documents), folder, *simulated.flags(), settings=settings, sample=cores.sample)
        yield {
            "devices": number,
            "device_tokens_per_s": rate,
            "tokens_per_s": round(run.rate),
            "efficiency": round(run.rate / (number * rate), 3),
            # Devices start one after the other, and stop one after the other. Between a quarter and three quarters of the shards all work.
            "steady_efficiency": round(steady_rate(run.receipts) / (number * rate), 3),
            "host_cpu_share": round(cores.share(run.embedding_began, run.embedding_ended), 3),
            "wall_s": round(run.process.wall, 1),
        }


def settings_of(number: int, rate: float) -> dict[str, Any]:
    """Settings as on a GPU host: an actor for each device, and tasks on the cores that prepare and publish."""
    return {
        "engine.kind": "simulated",
        "engine.tokens_per_second": rate,
        "engine.replicas": number,
        "engine.num_cpus": 0.01,  # a simulated device sleeps; the cores are for the tasks
        "ray.layout": "split",
    }


def steady_rate(receipts: list[Receipt]) -> float:
    """Tokens/s between the ends of the shard a quarter and of the shard three quarters through the run."""
    ordered = sorted(receipts, key=lambda receipt: receipt.embed_finished)
    first, last = len(ordered) // 4, max(len(ordered) * 3 // 4, len(ordered) // 4 + 1)
    if last >= len(ordered):
        raise SystemExit("bench: too few shards for a steady rate; give more --seconds")
    tokens = sum(receipt.counts.tokens for receipt in ordered[first + 1 : last + 1])
    return tokens / (ordered[last].embed_finished - ordered[first].embed_finished)


class Cores:
    """Samples of how busy the host's cores are."""

    def __init__(self) -> None:
        self.samples: list[tuple[float, float]] = []  # unix seconds, busy share since the sample before
        psutil.cpu_percent()

    def sample(self, _pid: int) -> float:
        self.samples.append((time.time(), psutil.cpu_percent() / 100))
        return 0.0

    def share(self, began: float, ended: float) -> float:
        shares = [share for at, share in self.samples if began < at <= ended + 1]
        return float(np.mean(shares)) if shares else 0.0
