"""What becomes of a shard whose process was lost. Pure.

A lost process says little: its node was taken away, or one of its shards holds a document that the
engine does not survive. So a shard that lost a process runs alone the next time, and if that process is
lost too, the shard is cut in halves, until the one document is left, which goes to the rejects. Lost nodes
are nobody's fault, and running out of memory is no fault of a shard that can be made smaller.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from bulkembed.records import Cause, Shard

Verdict = Literal["again", "halve", "reject", "fail"]
NODE_LOSSES = 20  # of one shard
PROCESS_LOSSES = 5  # of a shard of one row, which does not survive being rejected either
LOSSES_IN_A_ROW = 20  # without a shard done in between, or three for each actor: then it is not the documents


@dataclass
class Losses:
    """Counts losses by shard id; a shard's attempts are bounded whatever is restarted."""

    process: Counter[str] = field(default_factory=Counter)
    node: Counter[str] = field(default_factory=Counter)
    in_a_row: int = 0

    def suspect(self, shard: Shard) -> bool:
        """Whether the shard must run alone, so that a loss is known to be its own."""
        return self.process[shard.id] > 0

    def judge(self, shard: Shard, cause: Cause, alone: bool) -> Verdict:
        """Counts a loss and decides. `alone`: nothing else was in that process."""
        self.in_a_row += cause in ("engine", "memory")  # a wave of lost nodes says nothing of the documents
        if cause == "bystander":
            return "again"
        if cause == "node":
            self.node[shard.id] += 1
            return "again" if self.node[shard.id] < NODE_LOSSES else "fail"
        if cause == "memory" and shard.rows > 1:
            return "halve"
        self.process[shard.id] += 1
        count = self.process[shard.id]
        if not alone or count < 2:
            return "again"
        if shard.rows > 1:
            return "halve"
        return "reject" if count < PROCESS_LOSSES else "fail"

    def halves(self, shard: Shard) -> tuple[Shard, Shard]:
        """The shard in two, both as suspect as it is."""
        halves = shard.halves()
        for half in halves:
            self.process[half.id] = min(1, self.process[shard.id])
        return halves

    def hopeless(self, actors: int) -> bool:
        return self.in_a_row >= max(LOSSES_IN_A_ROW, 3 * actors)
