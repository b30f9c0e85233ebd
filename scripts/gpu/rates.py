"""Tokens/s of loaded engines."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.embedding.embedder import TokenIds
from bulkembed.embedding.throughput import cut_calls
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from scripts.gpu.flops import flops
from scripts.gpu.loaded import Loaded, bound_steps
from scripts.gpu.plan import Result

Lengths = npt.NDArray[np.int64]


def rate_with_steps(engines: list[VLLMEmbedder], loaded: Loaded, step_tokens: int, documents: TokenIds) -> Result:
    """`rate` with steps of at most so many tokens."""
    bound_steps(loaded.step_file, step_tokens)
    try:
        return rate(engines, documents, loaded)
    finally:
        bound_steps(loaded.step_file, loaded.task.step_tokens)


def rate(engines: list[VLLMEmbedder], documents: TokenIds, loaded: Loaded) -> Result:
    """Tokens/s of engines side by side, in calls like the job's. A first call warms up each engine."""
    task = loaded.task
    order = np.random.default_rng(0).permutation(len(documents))
    all_lengths = np.array([len(documents[row]) for row in order], np.int64)
    # Calls of engines side by side are shorter: at the end all but one engine wait for the last call.
    batches = [order[rows] for rows in cut_calls(all_lengths, task.call_tokens // (4 if len(engines) > 1 else 1))]

    def call(engine: VLLMEmbedder, rows: npt.NDArray[np.int64]) -> Lengths:
        with loaded.one_at_a_time:
            engine.embed([documents[row] for row in rows])
        return np.array([len(documents[row]) for row in rows], np.int64)

    run_side_by_side(engines, lambda engine, _number: [call(engine, batches[0])])
    started = time.perf_counter()
    due = started + task.seconds

    def work(engine: VLLMEmbedder, number: int) -> list[Lengths]:
        done: list[Lengths] = []
        batch = number
        while not done or time.perf_counter() < due:
            done.append(call(engine, batches[batch % len(batches)]))
            batch += len(engines)
        return done

    lengths = np.concatenate([done for engine_done in run_side_by_side(engines, work) for done in engine_done])
    return rate_row(lengths, time.perf_counter() - started, task.sizes(loaded.group.shape))


def rate_row(lengths: Lengths, seconds: float, sizes: dict[str, int]) -> Result:
    """Figures of documents of these lengths that were embedded in so many seconds."""
    return {
        "tokens_per_s": round(lengths.sum() / seconds),
        "documents_per_s": round(len(lengths) / seconds, 1),
        "tokens": int(lengths.sum()),
        "seconds": round(seconds, 2),
        "tflops": flops(sizes, lengths) / seconds / 1e12,
    }


def run_side_by_side(engines: list[VLLMEmbedder], work: Callable[[VLLMEmbedder, int], list[Any]]) -> list[list[Any]]:
    """Results of `work` for each engine, each in a thread of its own."""
    results: list[list[Any]] = [[] for _ in engines]

    def run(number: int) -> None:
        results[number] = work(engines[number], number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(results):
        raise RuntimeError("an engine has failed, see the log")
    return results
