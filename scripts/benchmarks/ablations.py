"""One setting changed at a time, in turns with the settings as they come.

As a command of its own (python -m scripts.benchmarks.ablations MODEL MAX_TOKENS QUESTION): orders of documents on one engine."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import typer

from bulkembed.embedding.embedder import TokenIds
from bulkembed.embedding.model_files import describe
from bulkembed.runs.job import load_tokenizer
from bulkembed.text.batches import pack
from bulkembed.tuning.search import PLAIN_MALLOC
from scripts.benchmarks import engine
from scripts.benchmarks.material import Row, corpus, engine_dtype, model_folder, shape_of
from scripts.benchmarks.ratio import run_job
from scripts.benchmarks.tune import tcmallocs

SHARD_ROWS = 500
BUCKET_TOKENS = 8192
ORDERS = ("order-source", "order-sorted", "order-buckets")


def changes() -> dict[str, dict[str, Any]]:
    """Settings of a run by the name of the ablation."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    found = tcmallocs()
    tcmalloc = {"tcmalloc": {"engine.env.LD_PRELOAD": str(found[0])}} if found else {}
    return tcmalloc | {
        "call-tokens-4096": {"engine.call_tokens": 4096},
        "call-tokens-32768": {"engine.call_tokens": 32768},
        "in-flight-1": {"ray.shards_in_flight": 1},
        "in-flight-3": {"ray.shards_in_flight": 3},
        "engine-process": {"engine.env.VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        "plain-malloc": {f"engine.env.{name}": value for name, value in PLAIN_MALLOC.items()},
        "bound": {"engine.env.VLLM_CPU_OMP_THREADS_BIND": cores},
        "split": {"ray.layout": "split"},
    }


def ablations(
    model: Annotated[list[str] | None, typer.Option(help="minilm, 42M or 0.6B; repeatable. [default: minilm]")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Repeatable: {', '.join(changes())}, order. [default: all]")] = None,
    documents: int = 2000,
    rounds: int = 3,
) -> Iterator[Row]:
    """The job's steady tokens/s with one setting changed at a time over those as it comes; and orders of documents on one engine."""
    known = changes()
    unknown = set(only or ()) - set(known) - {"order"}
    if unknown:
        raise SystemExit(f"bench: --only {sorted(unknown)[0]}: one of {', '.join(known)}, order (tcmalloc where it is installed)")
    wanted = {name: settings for name, settings in known.items() if not only or name in only}
    for name in model or ["minilm"]:
        given = {"model": name, "documents": documents, "engine_dtype": engine_dtype()}
        for result in jobs(name, wanted, documents, rounds) if wanted else ():
            yield given | result
        if not only or "order" in only:
            for result in orders(name, documents, rounds):
                yield given | result


def jobs(name: str, wanted: dict[str, dict[str, Any]], documents: int, rounds: int) -> Iterator[Row]:
    source = corpus(documents)
    rates: dict[str, list[float]] = defaultdict(list)
    every: dict[str, dict[str, Any]] = {"default": {}, **wanted}
    for _ in range(rounds):
        for title, settings in every.items():
            rates[title].append(run_job(name, source, min(SHARD_ROWS, documents // 4), settings).rate)
    return compared(rates, "default")


def orders(name: str, documents: int, rounds: int) -> Iterator[Row]:
    question = {"source": str(corpus(documents)), "rounds": rounds}
    return compared(engine.ask("ablations", model_folder(name), shape_of(name).max_tokens, question), ORDERS[0])


def compared(rates: dict[str, list[float]], base: str) -> Iterator[Row]:
    """Medians; the ratio is the median of the rounds' own ratios to the base."""
    for title, found in rates.items():
        ratios = [rate / before for rate, before in zip(found, rates[base], strict=True)]
        yield {
            "setting": title,
            "tokens_per_s": round(statistics.median(found)),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(each, 3) for each in ratios],
        }


def calls_of(order: str, lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Rows of each engine call: shards whole, in source order or longest first; or longest first in calls of BUCKET_TOKENS."""
    shards = [np.arange(start, min(start + SHARD_ROWS, len(lengths))) for start in range(0, len(lengths), SHARD_ROWS)]
    if order == "order-source":
        return shards
    budget = int(lengths.sum()) if order == "order-sorted" else BUCKET_TOKENS
    return [shard[batch] for shard in shards for batch in pack(lengths[shard], budget)]


def main(model: str, max_tokens: str, question: str) -> None:
    asked = json.loads(question)
    texts = pq.read_table(Path(asked["source"]) / "corpus.parquet")["text"].to_pylist()
    tokens = load_tokenizer(describe(model, None), int(max_tokens)).encode(texts)
    documents: TokenIds = [tokens.of(row) for row in range(len(texts))]
    embedder = engine.load(model, int(max_tokens))
    embedder.embed(documents[:SHARD_ROWS])  # warms up
    rates: dict[str, list[float]] = {order: [] for order in ORDERS}
    for _ in range(asked["rounds"]):
        for order, found in rates.items():
            started = time.perf_counter()
            for call in calls_of(order, tokens.lengths):
                embedder.embed([documents[row] for row in call])
            found.append(int(tokens.lengths.sum()) / (time.perf_counter() - started))
    print(json.dumps(rates))


if __name__ == "__main__":
    main(*sys.argv[1:])
