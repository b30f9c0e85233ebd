"""Whether memory stays where it is as the corpus grows, and which processes hold it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

import psutil
import typer

from scripts.benchmarks import job, simulated
from scripts.benchmarks.material import Row, corpus, memory_of, model_folder, tree

KINDS = ("driver", "actor", "helper", "ray")


def memory(
    documents: Annotated[int, typer.Option(help="Of the smaller corpus.")] = 10_000,
    times: Annotated[int, typer.Option(help="As many in the larger one.")] = 10,
    rate: Annotated[float, typer.Option(help="Tokens/s of the simulated device.")] = 1_000_000,
    layout: Annotated[list[str] | None, typer.Option(help="Repeatable. [default: fused and split; with --model fused]")] = None,
    model: Annotated[str | None, typer.Option(help="minilm, 42M or 0.6B, in its real engine. [default: a simulated one]")] = None,
    rounds: int = 1,
) -> Iterator[Row]:
    """Peak memory at 1x and 10x the corpus. Goal: at most 1.1 times as much."""
    engine: dict[str, Any] = {} if model else {"engine.kind": "simulated", "engine.tokens_per_second": rate}
    corpus_of = corpus if model else simulated.corpus
    folder, flags = (model_folder(model), job.flags(model)) if model else (simulated.model(), simulated.flags())
    for each in layout or (["fused"] if model else ["fused", "split"]):
        settings = engine | {"shards.max_rows": 1024, "ray.layout": each}
        small = 0.0
        for count in (documents, documents * times):
            peaks = [Peaks() for _ in range(rounds)]
            for mine in peaks:
                job.run(corpus_of(count), folder, *flags, settings=settings, sample=mine.sample, every=0.25)
            total = statistics.median(mine.total for mine in peaks)
            small = small or total
            kinds = {f"{kind}_mb": round(statistics.median(mine.kinds[kind] for mine in peaks) / 1e6) for kind in KINDS}
            sizes = {"peak_mb": round(total / 1e6), "over_1x": round(total / small, 3), **kinds}
            yield {"model": model or "simulated", "layout": each, "documents": count, **sizes}


class Peaks:
    """Most bytes of a process tree, and of each kind of its processes, at one moment."""

    def __init__(self) -> None:
        self.total = 0.0
        self.kinds: dict[str, float] = defaultdict(float)

    def sample(self, pid: int) -> float:
        now: dict[str, float] = defaultdict(float)
        for process in tree(pid):
            now[kind_of(process, pid)] += memory_of(process)
        for kind, size in now.items():
            self.kinds[kind] = max(self.kinds[kind], size)
        self.total = max(self.total, sum(now.values()))
        return self.total


def kind_of(process: psutil.Process, driver: int) -> str:
    """By the title that Ray gives a process: `ray::Worker.run_shard` is the actor, `ray::prepare` a task, `ray::IDLE` awaits one."""
    if process.pid == driver:
        return "driver"
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return "ray"  # it has ended, and counts nothing
    if title.startswith("ray::Worker"):
        return "actor"
    return "helper" if title.startswith("ray::") else "ray"
