"""The row `tail`: whether a run waits for one shard that is far more work than the others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from scripts.benchmarks import job, simulated
from scripts.benchmarks.devices import settings_of
from scripts.benchmarks.material import WORK, Row, write_corpus

CHARACTERS = 400  # of a document: about 100 tokens
LONG_FACTOR = 50  # a document of the long shard has so many times the characters
SHARD_ROWS = 256
PLACES = {"first": 0.0, "middle": 0.5, "last": 1.0}


def tail(
    devices: Annotated[int, typer.Option(help="Simulated devices.")] = 16,
    rate: Annotated[float, typer.Option(help="Tokens/s of one device; 16 devices of 20,000 fill two cores.")] = 10_000,
    shards: Annotated[int, typer.Option(help="Shards with equally many rows; one of them has 50 times the tokens.")] = 300,
    place: Annotated[list[str] | None, typer.Option(help="Long shard: first, middle or last; repeatable. [default: middle]")] = None,
) -> Iterator[Row]:
    """One shard of 50 times the tokens, on 16 simulated devices.

    The figure is the time of embedding over the ideal. Goal: at most 1.1."""
    folder = simulated.model()
    for name in place or ["middle"]:
        if name not in PLACES:
            raise SystemExit(f"bench: --place {name}: one of {', '.join(PLACES)}")
        settings = {**settings_of(devices, rate), "shards.max_rows": SHARD_ROWS}
        run = job.run(corpus(shards, name), folder, *simulated.flags(), settings=settings)
        ideal = ideal_seconds(run.tokens, devices, rate)
        yield {
            "place": name,
            "devices": devices,
            "shards": shards,
            "tokens": run.tokens,
            "longest_shard_tokens": max(receipt.counts.tokens for receipt in run.receipts),
            "embedding_s": round(run.embedding_seconds, 1),
            "ideal_s": round(ideal, 1),
            "over_ideal": round(run.embedding_seconds / ideal, 3),
            # Many processes that start on few cores wait for one another. On many hosts they would not, so this time is shown apart.
            "start_lost_s": round(lost := lost_at_start(run, devices, rate), 1),
            "over_ideal_once_started": round((run.embedding_seconds - lost) / ideal, 3),
            "published_shards": len(run.receipts),
        }


def ideal_seconds(tokens: int, devices: int, rate: float) -> float:
    """Seconds that the tokens take with all devices busy to the end."""
    return tokens / (devices * rate)


def lost_at_start(run: job.JobRun, devices: int, rate: float) -> float:
    """Seconds by which the run is behind the ideal: the least in its middle half."""
    ordered = sorted(run.receipts, key=lambda receipt: receipt.embed_finished)
    done = np.cumsum([receipt.counts.tokens for receipt in ordered])
    behind = np.array([receipt.embed_finished - run.embedding_began for receipt in ordered]) - done / (devices * rate)
    middle = (done > done[-1] / 4) & (done < done[-1] * 3 / 4)
    return max(0.0, float(behind[middle].min()))


def sizes(shards: int, place: str) -> list[int]:
    """Characters of every document."""
    long = round(PLACES[place] * (shards - 1))
    return [CHARACTERS * (LONG_FACTOR if number == long else 1) for number in range(shards) for _ in range(SHARD_ROWS)]


def corpus(shards: int, place: str) -> Path:
    folder = WORK / f"tail-{shards}-{place}"
    if not folder.exists():
        write_corpus(folder, range(shards * SHARD_ROWS), list(simulated.texts(sizes(shards, place))), SHARD_ROWS)
    return folder
