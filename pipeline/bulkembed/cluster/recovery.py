"""Decides about a shard whose process was lost. Pure.

A lost process says little: its node may be gone, or one of its shards may hold a document that kills the engine. So a
shard that lost a process runs alone the next time. If that process is lost too, the shard is halved, and so on until
one document is left, which goes to the rejects. A lost node does not count against the shard. A shard that ran out of
memory is halved at once, since a smaller one may fit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from bulkembed.records import Cause
from bulkembed.shards import Shard

Verdict = Literal["again", "halve", "reject", "fail"]
MAX_NODE_LOSSES = 20  # of one shard
MAX_PROCESS_LOSSES = 5  # of a shard of one row: then even rejecting it loses the process
MAX_LOSSES_IN_A_ROW = 20  # of any shards, or three for each actor: then the documents are not the cause, and the run ends


@dataclass
class Recovery:
    """Counts losses by shard id, so that the attempts at a shard are bounded whatever is restarted."""

    process_losses: Counter[str] = field(default_factory=Counter)
    node_losses: Counter[str] = field(default_factory=Counter)
    in_a_row: int = 0  # losses of engines since the last success

    def is_suspect(self, shard: Shard) -> bool:
        """Whether the shard must run alone, so that a further loss can only be its own."""
        return self.process_losses[shard.id] > 0

    def judge(self, shard: Shard, cause: Cause, alone: bool) -> Verdict:
        """Counts a loss and decides what comes next. `alone`: nothing else ran in that process."""
        self.in_a_row += cause in ("engine", "memory")  # many lost nodes at once say nothing about the documents
        if cause == "bystander":
            return "again"
        if cause == "node":
            self.node_losses[shard.id] += 1
            return "again" if self.node_losses[shard.id] < MAX_NODE_LOSSES else "fail"
        if cause == "memory" and shard.rows > 1:
            return "halve"
        self.process_losses[shard.id] += 1
        losses = self.process_losses[shard.id]
        if not alone or losses < 2:
            return "again"
        if shard.rows > 1:
            return "halve"
        return "reject" if losses < MAX_PROCESS_LOSSES else "fail"

    def record_success(self) -> None:
        self.in_a_row = 0

    def halve(self, shard: Shard) -> tuple[Shard, Shard]:
        """The shard in two, each as suspect as the whole."""
        halves = shard.halves()
        for half in halves:
            self.process_losses[half.id] = min(1, self.process_losses[shard.id])
        return halves

    def is_hopeless(self, actors: int) -> bool:
        """Whether the run must end: so many attempts in a row were lost that no single document can be the cause."""
        return self.in_a_row >= max(MAX_LOSSES_IN_A_ROW, 3 * actors)
