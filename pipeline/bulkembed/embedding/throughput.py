"""How fast a loaded model is, without the rest of the job."""

from __future__ import annotations

import itertools
import time

import numpy as np
import numpy.typing as npt

from bulkembed.embedding.embedder import Embedder, TokenIds

SMALL_CALL_TOKENS = 4096


def measure_rate(documents: TokenIds, call_tokens: int, embedder: Embedder, seconds: float) -> float:
    """Tokens/s over about `seconds`. Every call takes its documents from all over the sample, so calls are alike."""
    order = np.random.default_rng(0).permutation(len(documents))
    lengths = np.array([len(documents[row]) for row in order], np.int64)
    small_calls = cut_calls(lengths, SMALL_CALL_TOKENS)
    timed_call(documents, order[small_calls[0]], embedder)  # warms up
    small_seconds = timed_call(documents, order[small_calls[-1]], embedder)
    # A slow model would take minutes for one call of `call_tokens`.
    max_tokens = min(call_tokens, max(SMALL_CALL_TOKENS, int(seconds * lengths[small_calls[-1]].sum() / small_seconds)))
    tokens, spent = 0, 0.0
    for rows in itertools.cycle(cut_calls(lengths, max_tokens)):
        spent += timed_call(documents, order[rows], embedder)
        tokens += int(lengths[rows].sum())
        if spent >= seconds:
            break
    return tokens / spent


def cut_calls(lengths: npt.NDArray[np.int64], max_tokens: int) -> list[npt.NDArray[np.int64]]:
    """Rows of documents in the order given, cut into calls of about `max_tokens`. Within a call the longest come first."""
    number = (np.cumsum(lengths) - lengths) // max_tokens
    calls = [np.flatnonzero(number == call) for call in np.unique(number)]
    return [rows[np.argsort(-lengths[rows], kind="stable")] for rows in calls]


def timed_call(documents: TokenIds, rows: npt.NDArray[np.int64], embedder: Embedder) -> float:
    """Seconds of one call with these documents."""
    started = time.perf_counter()
    embedder.embed([documents[row] for row in rows])
    return max(time.perf_counter() - started, 1e-9)
