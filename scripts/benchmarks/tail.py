"""One shard that is far more work than the others: does the run wait for it?"""

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
TIMES = 50  # as much in every document of the long shard
SHARD_ROWS = 256
PLACES = {"first": 0.0, "middle": 0.5, "last": 1.0}


def tail(
    devices: int = 16,
    rate: Annotated[float, typer.Option(help="Tokens/s of one device. Sixteen of twice as much fill two cores.")] = 10_000,
    shards: Annotated[int, typer.Option(help="Of equal rows; one of them has 50 times the tokens.")] = 300,
    place: Annotated[list[str] | None, typer.Option(help="Of the long shard: first, middle or last; repeatable. [default: middle]")] = None,
) -> Iterator[Row]:
    """One shard of 50 times the tokens, 16 simulated devices: wall while embedding over the ideal. Goal: at most 1.1."""
    folder = simulated.model()
    for each in place or ["middle"]:
        if each not in PLACES:
            raise SystemExit(f"bench: --place {each}: one of {', '.join(PLACES)}")
        settings = {**settings_of(devices, rate), "shards.max_rows": SHARD_ROWS}
        ran = job.run(corpus(shards, each), folder, *simulated.flags(), settings=settings)
        ideal = ideal_seconds(ran.tokens, devices, rate)
        yield {
            "place": each,
            "devices": devices,
            "shards": shards,
            "tokens": ran.tokens,
            "longest_shard_tokens": max(receipt.counts.tokens for receipt in ran.receipts),
            "embedding_s": round(ran.embedding, 1),
            "ideal_s": round(ideal, 1),
            "over_ideal": round(ran.embedding / ideal, 3),
            # Many processes starting on few cores wait for one another, as they would not on many hosts: without that.
            "start_lost_s": round(lost := lost_at_start(ran, devices, rate), 1),
            "over_ideal_once_started": round((ran.embedding - lost) / ideal, 3),
            "published_shards": len(ran.receipts),
        }


def ideal_seconds(tokens: int, devices: int, rate: float) -> float:
    """All devices busy to the end."""
    return tokens / (devices * rate)


def lost_at_start(ran: job.Ran, devices: int, rate: float) -> float:
    """Seconds by which the tokens done in the middle half of the run are behind the ideal, where they are least."""
    ordered = sorted(ran.receipts, key=lambda receipt: receipt.embed_finished)
    done = np.cumsum([receipt.counts.tokens for receipt in ordered])
    behind = np.array([receipt.embed_finished - ran.began for receipt in ordered]) - done / (devices * rate)
    middle = (done > done[-1] / 4) & (done < done[-1] * 3 / 4)
    return max(0.0, float(behind[middle].min()))


def sizes(shards: int, place: str) -> list[int]:
    """Characters of every document."""
    long = round(PLACES[place] * (shards - 1))
    return [CHARACTERS * (TIMES if number == long else 1) for number in range(shards) for _ in range(SHARD_ROWS)]


def corpus(shards: int, place: str) -> Path:
    folder = WORK / f"tail-{shards}-{place}"
    if not folder.exists():
        write_corpus(folder, range(shards * SHARD_ROWS), list(simulated.texts(sizes(shards, place))), SHARD_ROWS)
    return folder
