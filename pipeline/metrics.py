"""Counters of a run: what the progress line and the final report say."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from pipeline.records import Failure, Receipt


@dataclass
class Progress:
    """Adds up outcomes as they stream in."""

    shards_total: int
    rows_total: int
    shards: int = 0
    rows: int = 0
    documents: int = 0
    rejects: int = 0
    truncated: int = 0
    repeated_ids: int = 0
    tokens: int = 0
    data_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    first_started: float = float("inf")  # unix seconds, of the embedding of any shard
    last_finished: float = 0.0
    started: float = field(default_factory=time.monotonic)

    def add(self, outcome: Receipt | Failure) -> None:
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        self.shards += 1
        for name in ("rows", "documents", "rejects", "truncated", "repeated_ids", "tokens", "data_bytes"):
            setattr(self, name, getattr(self, name) + getattr(outcome, name))
        self.first_started = min(self.first_started, outcome.embed_started)
        self.last_finished = max(self.last_finished, outcome.embed_finished)

    @property
    def tokens_per_second(self) -> float:
        """From the first shard's start on the engine to the last shard's end."""
        spent = self.last_finished - self.first_started
        return self.tokens / spent if spent > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """By tokens: the rows left are taken to hold as many tokens each as those done."""
        if not self.rows or not self.tokens_per_second:
            return None
        return (self.rows_total - self.rows) * (self.tokens / self.rows) / self.tokens_per_second

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.started
