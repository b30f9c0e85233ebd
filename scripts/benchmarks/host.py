"""How many tokens/s a host can feed and drain, with everything real but the model: the simulated engine sleeps
for tokens / rate seconds and returns vectors of the right size."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from tokenizers import Tokenizer

from scripts.benchmarks import job
from scripts.benchmarks.material import Row
from scripts.benchmarks.simulated import corpus, flags, model


def host(
    rate: Annotated[float, typer.Option(help="Tokens/s of the simulated device.")] = 400_000,
    documents: int = 20_000,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, such as Qwen3's own. [default: one trained on the spot]")
    ] = None,
    layout: Annotated[
        list[str] | None, typer.Option(help="Repeatable. [default: split, as on GPU hosts; fused takes turns with an engine on the CPU]")
    ] = None,
    rounds: int = 3,
) -> Iterator[Row]:
    """What the host feeds and drains, with a simulated device."""
    source, folder = corpus(documents), model(tokenizer)
    for each in layout or ["split"]:
        settings = {"engine.kind": "simulated", "engine.tokens_per_second": rate, "shards.max_rows": 1024, "ray.layout": each}
        runs = [job.run(source, folder, *flags(), settings=settings) for _ in range(rounds)]
        yield {"layout": each, "device_tokens_per_s": rate, **shares(runs, rate, tokenizer_rate(folder, source))}


def shares(runs: list[job.Ran], rate: float, bare: float) -> Row:
    """Medians. `bare`: tokens/s of the tokenizer alone on one core."""
    cores = os.cpu_count() or 1
    speed = statistics.median(ran.rate for ran in runs)
    return {
        "simulated_tokens_per_s": round(speed),
        "busy_share": round(speed / rate, 3),
        "tokenizer_tokens_per_s_per_core": round(bare),
        # What the host can do shows where the device is never full: with a --rate far above it.
        "share_of_tokenizer": round(speed / cores / bare, 3),
        "tokens_per_document": round(runs[0].tokens / runs[0].documents),
        "cores": cores,
        "wall_s": round(statistics.median(ran.process.wall for ran in runs), 1),
    }


def tokenizer_rate(folder: Path, source: Path) -> float:
    """Tokens/s of the bare tokenizer on one core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = pq.read_table(source / "corpus.parquet")["text"].to_pylist()[:4000]
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        batches = [tokenizer.encode_batch_fast(texts[start : start + 256]) for start in range(0, len(texts), 256)]
        rates.append(sum(len(each.ids) for batch in batches for each in batch) / (time.perf_counter() - started))
    return statistics.median(rates)
