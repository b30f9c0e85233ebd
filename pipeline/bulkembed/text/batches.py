"""Lengths of documents -> batches of similar length under a token budget. Pure.

vLLM does not pad, so similar lengths gain little there. Batches of equal cost bound the memory of a call, keep every actor busy to
the end of a shard, and make an ETA in tokens accurate.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def pack_batches(lengths: npt.NDArray[np.int64], token_budget: int) -> list[npt.NDArray[np.int64]]:
    """Batches of at most `token_budget` tokens: indices into `lengths`, the longest documents first.

    Every index is in exactly one batch. A document longer than the budget is a batch of its own."""
    order = np.argsort(-lengths, kind="stable")
    ends = np.cumsum(lengths[order])
    batches: list[npt.NDArray[np.int64]] = []
    start, spent = 0, 0
    while start < len(order):
        stop = max(start + 1, int(np.searchsorted(ends, spent + token_budget, side="right")))
        batches.append(order[start:stop])
        start, spent = stop, int(ends[stop - 1])
    return batches
