"""The row `month`: nights on which an upstream job writes the whole corpus anew, each beside a run from scratch."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from scripts.benchmarks.material import WORK, Row, model_folder
from scripts.samples import nights
from scripts.samples.nights import KEPT_COLUMNS, Shares
from tests.support.nights import sorted_rows
from tests.support.runs import read_dataset

CHARACTERS = 40  # of a text at least: the engine is simulated, so that longer ones would only take longer to tokenize
SHARES = Shares(kept_changed=0.01, swapped=0.002, copied=0.002, doubled=0.002)
FILES = 8
WIDTH = 64


def month(
    documents: Annotated[int, typer.Option(help="Documents of the first night.")] = 200_000,
    count: Annotated[int, typer.Option("--nights", help="Nights.")] = 30,
    scratch_every: Annotated[int, typer.Option(help="Nights from one run from scratch to the next.")] = 1,
) -> Iterator[Row]:
    """Nights of a shuffled corpus, beside runs from scratch.

    Every night all files are cut elsewhere and shuffled. Goal: exactly the new contents reach the engine, and all rows are those of a run
    from scratch, bit for bit. It ends at the first night that is otherwise."""
    folder = WORK / "month"
    shutil.rmtree(folder, ignore_errors=True)
    random = np.random.default_rng(0)
    corpus, before = nights.first_night(documents, CHARACTERS), nights.first_night(0, CHARACTERS)
    sent = 0
    for night in range(1, count + 1):
        nights.write(corpus, folder / "in", FILES, random)
        result = one_night(folder, nights.new_contents(before, corpus), night % scratch_every == 0)
        sent += result["sent_to_engine"]
        yield {"night": night, "documents": corpus.rows, **result, "sent_in_all": sent}
        before, corpus = corpus, nights.next_night(corpus, SHARES, random)


def one_night(folder: Path, new_contents: int, beside_scratch: bool) -> Row:
    started = time.monotonic()
    sent = embed(folder / "in", folder / "out")
    seconds = time.monotonic() - started
    if sent != new_contents:
        raise SystemExit(f"bench: {sent:,} documents reached the engine, not {new_contents:,}")
    result = {"new_contents": new_contents, "sent_to_engine": sent, "night_s": round(seconds, 1)}
    if not beside_scratch:
        return result
    shutil.rmtree(folder / "scratch", ignore_errors=True)
    embed(folder / "in", folder / "scratch")
    if not sorted_rows(read_dataset(folder / "out")).equals(sorted_rows(read_dataset(folder / "scratch"))):
        raise SystemExit("bench: the dataset is not that of a run from scratch")
    return result | {"equals_run_from_scratch": True}


class Counter(SimulatedEmbedder):
    """A simulated engine that counts documents."""

    count = 0

    def embed(self, documents: TokenIds) -> Vectors:
        self.count += len(documents)
        return super().embed(documents)


def embed(source: Path, output: Path) -> int:
    """A run in this process. Returns how many documents it sent to the engine."""
    values = {"source": str(source), "output": str(output), "model": str(model_folder("tiny")), "max_tokens": 64, "dtype": "float16"}
    counter = Counter(WIDTH, 1e12)
    cfg = RunConfig.model_validate(values | {"keep_columns": KEPT_COLUMNS, "engine": {"kind": "simulated"}})
    run(cfg, lambda progress: None, LocalExecutor(counter)).require_complete()
    return counter.count
