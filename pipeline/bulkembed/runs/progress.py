"""Counters of a run: what the progress line and the final report say."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bulkembed.records import Cause, Counts, Failure, LostAttempt, Receipt
from bulkembed.shards import Shard


def failures_text(failures: list[Failure]) -> str:
    """What failed, and the last line of why; of many the first few."""
    return "; ".join(f"{failure.where}: {failure.reason.strip().splitlines()[-1]}" for failure in failures[:5])


@dataclass
class Progress:
    """Adds up outcomes as they stream in."""

    shards_total: int = 0
    rows_total: int = 0
    shards: int = 0
    published: set[str] = field(default_factory=set)  # names of the files that were embedded
    counts: Counts = field(default_factory=Counts)
    data_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    lost: Counter[Cause] = field(default_factory=Counter)  # attempts, by why
    first_started: float = float("inf")  # monotonic seconds of this process: when the first shard was on the engine
    last_finished: float = 0.0  # when the last one was told

    def expect(self, shards: Sequence[Shard]) -> None:
        """These shards come, beside those that are done."""
        self.shards_total = self.shards + len(shards)
        self.rows_total = self.counts.rows + sum(shard.rows for shard in shards)

    def add(self, outcome: Receipt | Failure | LostAttempt) -> None:
        if isinstance(outcome, LostAttempt):
            self.lost[outcome.cause] += 1
            return
        if isinstance(outcome, Failure):
            self.failures.append(outcome)
            return
        self.shards += 1
        self.published.add(outcome.shard)
        self.counts += outcome.counts
        self.data_bytes += outcome.data_bytes
        self.last_finished = time.monotonic()  # by the clock of this process: those of other hosts may be off by hours
        self.first_started = min(self.first_started, self.last_finished - max(0.0, outcome.embed_finished - outcome.embed_started))

    @property
    def tokens_per_second(self) -> float:
        """From the first shard's start on the engine to the last shard's end, each as long ago as its receipt took to get here."""
        spent = self.last_finished - self.first_started
        return self.counts.tokens / spent if spent > 0 else 0.0

    @property
    def eta_seconds(self) -> float | None:
        """By tokens: the rows left are taken to hold as many tokens each as those done."""
        if not self.counts.rows or not self.tokens_per_second:
            return None
        return (self.rows_total - self.counts.rows) * (self.counts.tokens / self.counts.rows) / self.tokens_per_second
