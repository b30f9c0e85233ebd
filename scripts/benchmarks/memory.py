"""The row `memory`: whether peak memory stays the same while the corpus grows, and which processes hold it."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterator
from typing import Annotated, Any

import psutil
import typer

from scripts.benchmarks import job, simulated
from scripts.benchmarks.material import Row, corpus, model_folder
from scripts.benchmarks.measuring import memory_of, tree

KINDS = ("driver", "actor", "helper", "ray")


def memory(
    documents: Annotated[int, typer.Option(help="Documents of the smaller corpus.")] = 10_000,
    times: Annotated[int, typer.Option(help="How many times larger the larger corpus is.")] = 10,
    rate: Annotated[float, typer.Option(help="Tokens/s of the simulated device.")] = 1_000_000,
    layout: Annotated[list[str] | None, typer.Option(help="fused or split; repeatable. [default: both; fused with --model]")] = None,
    model: Annotated[str | None, typer.Option(help="Model in a real engine: minilm, 42M or 0.6B. [default: a simulated engine]")] = None,
    rounds: Annotated[int, typer.Option(help="Runs for each corpus.")] = 1,
) -> Iterator[Row]:
    """Peak memory at 1x and 10x the corpus.

    Goal: at most 1.1 times as much."""
    engine: dict[str, Any] = {} if model else {"engine.kind": "simulated", "engine.tokens_per_second": rate}
    corpus_of = corpus if model else simulated.corpus
    folder, flags = (model_folder(model), job.flags(model)) if model else (simulated.model(), simulated.flags())
    for name in layout or (["fused"] if model else ["fused", "split"]):
        settings = engine | {"shards.max_rows": 1024, "ray.layout": name}
        total_1x = 0.0
        for count in (documents, documents * times):
            peaks = [Peaks() for _ in range(rounds)]
            for peak in peaks:
                job.run(corpus_of(count), folder, *flags, settings=settings, sample=peak.sample, every=0.25)
            total = statistics.median(peak.total for peak in peaks)
            total_1x = total_1x or total
            kinds = {f"{kind}_mb": round(statistics.median(peak.kinds[kind] for peak in peaks) / 1e6) for kind in KINDS}
            sizes = {"peak_mb": round(total / 1e6), "over_1x": round(total / total_1x, 3), **kinds}
            yield {"model": model or "simulated", "layout": name, "documents": count, **sizes}


class Peaks:
    """Peak bytes of a process tree, and of each kind of its processes."""

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
    """The kind of a process, by the title that Ray gives it.

    `ray::Worker.run_shard` is an actor, `ray::prepare` a task, `ray::IDLE` waits for a task."""
    if process.pid == driver:
        return "driver"
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return "ray"  # the process has ended and has no memory
    if title.startswith("ray::Worker"):
        return "actor"
    return "helper" if title.startswith("ray::") else "ray"
