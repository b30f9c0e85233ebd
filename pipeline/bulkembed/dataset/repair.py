"""Takes back what is damaged in a snapshot, so that the next run makes it again. It removes nothing that is right.

The order makes a crash harmless: first the doubt, so that the next run looks at everything, then each receipt, then what it vouches for."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bulkembed.dataset import heads, paths
from bulkembed.dataset.json_records import write_record
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot, newest_of_line
from bulkembed.records import Receipt


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a snapshot."""

    text: str  # one line: what, where
    undone: tuple[str, ...] = ()  # URIs that a repair removes, in this order
    receipt: Receipt | None = None  # that a repair writes again: its data file is right
    is_rewritten: bool = False  # by a repair, and by the next run

    @property
    def has_remedy(self) -> bool:
        return bool(self.undone) or self.receipt is not None or self.is_rewritten


@dataclass(frozen=True)
class Repair:
    """What a repair does, or has done."""

    removed: list[str]  # URIs of what is there
    receipts: list[str]  # URIs, written again
    needs_run: bool  # whether the next run has something to make again


NO_REPAIR = Repair([], [], needs_run=False)


def plan_repair(ledger: Ledger, problems: Collection[Problem]) -> Repair:
    undone = dict.fromkeys(uri for problem in problems for uri in problem.undone)
    receipts = dict.fromkeys(ledger.receipt_uri(problem.receipt.shard) for problem in problems if problem.receipt is not None)
    return Repair([uri for uri in undone if ledger.store.stands(uri)], list(receipts), bool(undone))


def repair(ledger: Ledger, snapshot: Snapshot, problems: Sequence[Problem]) -> Repair:
    """Does what `plan_repair` says, and writes the head and current.txt where they are wrong. The caller holds the lease of the line."""
    plan = plan_repair(ledger, problems)
    if plan.needs_run:
        newest = newest_of_line(ledger.store, ledger.output, snapshot.line, snapshot.limited) or snapshot
        ledger.store.create(paths.doubt_uri(ledger.output, newest.number), b"{}\n")
    for uri in plan.removed:
        ledger.store.delete(uri)
    for problem in problems:
        if problem.receipt is not None:
            write_record(ledger.store, ledger.receipt_uri(problem.receipt.shard), problem.receipt.to_dict())
    if any(problem.is_rewritten for problem in problems):
        heads.refresh_head(ledger.store, ledger.output)
    return plan
