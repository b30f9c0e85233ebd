"""The row `host`: how many tokens/s a host can feed and drain.

All is real but the model. The simulated engine sleeps for tokens / rate seconds and returns vectors of the right size."""

from __future__ import annotations

import os
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from tokenizers import Tokenizer

from scripts.benchmarks import job
from scripts.benchmarks.material import Row
from scripts.benchmarks.measuring import seconds_of
from scripts.benchmarks.simulated import corpus, flags, model


def host(
    rate: Annotated[float, typer.Option(help="Tokens/s of the simulated device.")] = 400_000,
    documents: Annotated[int, typer.Option(help="Documents of about 300 tokens.")] = 20_000,
    tokenizer: Annotated[
        Path | None, typer.Option(help="A tokenizer.json, such as Qwen3's own. [default: one trained on Python's documentation]")
    ] = None,
    layout: Annotated[
        list[str] | None, typer.Option(help="split, as on GPU hosts, or fused, as on CPU hosts; repeatable. [default: split]")
    ] = None,
    rounds: Annotated[int, typer.Option(help="Runs for each layout.")] = 3,
) -> Iterator[Row]:
    """Tokens/s that one host feeds to a device and drains from it.

    The device is simulated. Goals: it is busy for 0.98 of the time, and a core makes 0.6 of the bare tokenizer's rate."""
    source, folder = corpus(documents), model(tokenizer)
    for name in layout or ["split"]:
        settings = {"engine.kind": "simulated", "engine.tokens_per_second": rate, "shards.max_rows": 1024, "ray.layout": name}
        runs = [job.run(source, folder, *flags(), settings=settings) for _ in range(rounds)]
        yield {"layout": name, "device_tokens_per_s": rate, **shares(runs, rate, tokenizer_rate(folder, source))}


def shares(runs: list[job.JobRun], rate: float, bare: float) -> Row:
    """Medians over the runs. `bare`: tokens/s of the tokenizer alone on one core."""
    cores = os.cpu_count() or 1
    speed = statistics.median(run.rate for run in runs)
    return {
        "simulated_tokens_per_s": round(speed),
        "busy_share": round(speed / rate, 3),
        "tokenizer_tokens_per_s_per_core": round(bare),
        # This is the host's limit only with a --rate that the host cannot reach.
        "share_of_tokenizer": round(speed / cores / bare, 3),
        "tokens_per_document": round(runs[0].tokens / runs[0].documents),
        "cores": cores,
        "wall_s": round(statistics.median(run.process.wall for run in runs), 1),
    }


def tokenizer_rate(folder: Path, source: Path) -> float:
    """Tokens/s of the bare tokenizer on one core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = pq.read_table(source / "corpus.parquet")["text"].to_pylist()[:4000]
    batches = [texts[start : start + 256] for start in range(0, len(texts), 256)]
    tokens = 0

    def tokenize() -> None:  # to Python lists, as a program needs them
        nonlocal tokens
        tokens = sum(len(encoding.ids) for encoded in [tokenizer.encode_batch_fast(batch) for batch in batches] for encoding in encoded)

    seconds = statistics.median(seconds_of(tokenize) for _ in range(3))
    return tokens / seconds
