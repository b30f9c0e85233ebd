"""How fast a loaded model is: tokens/s of the engine alone."""

from __future__ import annotations

import itertools
import time

import numpy as np
import numpy.typing as npt

from bulkembed.embedding.embedder import Embedder, TokenIds

SMALL_CALL_TOKENS = 4096


def rate(documents: TokenIds, call_tokens: int, embedder: Embedder, seconds: float) -> float:
    """Tokens/s over about `seconds`, of calls alike: each takes its documents from all over the sample."""
    order = np.random.default_rng(0).permutation(len(documents))
    lengths = np.array([len(documents[n]) for n in order], np.int64)
    small = calls(lengths, SMALL_CALL_TOKENS)
    timed_call(documents, order[small[0]], embedder)  # warms up
    guess = timed_call(documents, order[small[-1]], embedder)
    # A slow model would take minutes for one whole call.
    budget = min(call_tokens, max(SMALL_CALL_TOKENS, int(seconds * lengths[small[-1]].sum() / guess)))
    tokens, spent = 0, 0.0
    for call in itertools.cycle(calls(lengths, budget)):
        spent += timed_call(documents, order[call], embedder)
        tokens += int(lengths[call].sum())
        if spent >= seconds:
            break
    return tokens / spent


def calls(lengths: npt.NDArray[np.int64], budget: int) -> list[npt.NDArray[np.int64]]:
    """Documents in the order given, cut into calls of about `budget` tokens, longest first in each."""
    number = (np.cumsum(lengths) - lengths) // budget
    parts = [np.flatnonzero(number == each) for each in np.unique(number)]
    return [part[np.argsort(-lengths[part], kind="stable")] for part in parts]


def timed_call(documents: TokenIds, rows: npt.NDArray[np.int64], embedder: Embedder) -> float:
    started = time.perf_counter()
    embedder.embed([documents[row] for row in rows])
    return max(time.perf_counter() - started, 1e-9)
