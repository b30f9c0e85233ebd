"""The row `ablations`: one setting changed at a time, alternating with the default settings.

The command `python -m scripts.benchmarks.ablations MODEL MAX_TOKENS QUESTION` measures orders of documents on one engine."""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import typer

from bulkembed.embedding.embedder import Embedder, TokenIds
from bulkembed.embedding.model_files import describe
from bulkembed.runs.job import load_tokenizer
from bulkembed.text.batches import pack_batches
from bulkembed.tuning.search import DEFAULT_MALLOC
from scripts.benchmarks import engine
from scripts.benchmarks.material import Row, corpus, engine_dtype, model_folder, shape_of
from scripts.benchmarks.measuring import seconds_of
from scripts.benchmarks.ratio import run_job
from scripts.benchmarks.tune import tcmalloc_paths

SHARD_ROWS = 500
BUCKET_TOKENS = 8192
ORDERS = ("order-source", "order-sorted", "order-buckets")


def changes() -> dict[str, dict[str, Any]]:
    """Settings of a run for each ablation."""
    cores = ",".join(map(str, sorted(os.sched_getaffinity(0))))
    libraries = tcmalloc_paths()
    tcmalloc = {"tcmalloc": {"engine.env.LD_PRELOAD": str(libraries[0])}} if libraries else {}
    return tcmalloc | {
        "call-tokens-4096": {"engine.call_tokens": 4096},
        "call-tokens-32768": {"engine.call_tokens": 32768},
        "in-flight-1": {"ray.shards_in_flight": 1},
        "in-flight-3": {"ray.shards_in_flight": 3},
        "engine-process": {"engine.env.VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        "plain-malloc": {f"engine.env.{name}": value for name, value in DEFAULT_MALLOC.items()},
        "bound": {"engine.env.VLLM_CPU_OMP_THREADS_BIND": cores},
        "split": {"ray.layout": "split"},
    }


def ablations(
    model: Annotated[list[str] | None, typer.Option(help="Model: minilm, 42M or 0.6B; repeatable. [default: minilm]")] = None,
    only: Annotated[list[str] | None, typer.Option(help=f"Change: {', '.join(changes())}, order; repeatable. [default: all]")] = None,
    documents: Annotated[int, typer.Option(help="Documents of the demo corpus.")] = 2000,
    rounds: Annotated[int, typer.Option(help="Rounds; each measures the default and every change.")] = 3,
) -> Iterator[Row]:
    """One setting changed at a time, over the default settings.

    The job's steady tokens/s are compared. The row `order` compares orders of documents on one engine."""
    known = changes()
    unknown = set(only or ()) - set(known) - {"order"}
    if unknown:
        raise SystemExit(f"bench: --only {sorted(unknown)[0]}: one of {', '.join(known)}, order (tcmalloc where it is installed)")
    selected = {name: settings for name, settings in known.items() if not only or name in only}
    for name in model or ["minilm"]:
        context = {"model": name, "documents": documents, "engine_dtype": engine_dtype()}
        for result in compare_jobs(name, selected, documents, rounds) if selected else ():
            yield context | result
        if not only or "order" in only:
            for result in compare_orders(name, documents, rounds):
                yield context | result


def compare_jobs(name: str, selected: dict[str, dict[str, Any]], documents: int, rounds: int) -> Iterator[Row]:
    source = corpus(documents)
    rates: dict[str, list[float]] = defaultdict(list)
    settings_by_title: dict[str, dict[str, Any]] = {"default": {}, **selected}
    for _ in range(rounds):
        for title, settings in settings_by_title.items():
            rates[title].append(run_job(name, source, min(SHARD_ROWS, documents // 4), settings).rate)
    return ratios_to(rates, "default")


def compare_orders(name: str, documents: int, rounds: int) -> Iterator[Row]:
    question = {"source": str(corpus(documents)), "rounds": rounds}
    return ratios_to(engine.ask("ablations", model_folder(name), shape_of(name).max_tokens, question), ORDERS[0])


def ratios_to(rates: dict[str, list[float]], base: str) -> Iterator[Row]:
    """A row for each setting. The ratio is the median of the rounds' own ratios to the base."""
    for title, rates_of_rounds in rates.items():
        ratios = [rate / before for rate, before in zip(rates_of_rounds, rates[base], strict=True)]
        yield {
            "setting": title,
            "tokens_per_s": round(statistics.median(rates_of_rounds)),
            "ratio": round(statistics.median(ratios), 3),
            "ratios": [round(ratio, 3) for ratio in ratios],
        }


def calls_of(order: str, lengths: npt.NDArray[np.int64]) -> list[npt.NDArray[np.int64]]:
    """Row numbers of each engine call.

    A call is a whole shard in source order or longest first, or, for buckets, BUCKET_TOKENS tokens longest first."""
    shards = [np.arange(start, min(start + SHARD_ROWS, len(lengths))) for start in range(0, len(lengths), SHARD_ROWS)]
    if order == "order-source":
        return shards
    budget = int(lengths.sum()) if order == "order-sorted" else BUCKET_TOKENS
    return [shard[batch] for shard in shards for batch in pack_batches(lengths[shard], budget)]


def embed_calls(embedder: Embedder, calls: Sequence[TokenIds]) -> None:
    for call in calls:
        embedder.embed(call)


def main(model: str, max_tokens: str, question: str) -> None:
    options = json.loads(question)
    texts = pq.read_table(Path(options["source"]) / "corpus.parquet")["text"].to_pylist()
    tokens = load_tokenizer(describe(model, None), int(max_tokens)).encode(texts)
    documents: TokenIds = [tokens.of(row) for row in range(len(texts))]
    embedder = engine.load(model, int(max_tokens))
    embedder.embed(documents[:SHARD_ROWS])  # warms up
    rates: dict[str, list[float]] = {order: [] for order in ORDERS}
    for _ in range(options["rounds"]):
        for order in ORDERS:
            calls = [[documents[row] for row in call] for call in calls_of(order, tokens.lengths)]
            rates[order].append(int(tokens.lengths.sum()) / seconds_of(partial(embed_calls, embedder, calls)))
    print(json.dumps(rates))


if __name__ == "__main__":
    main(*sys.argv[1:])
