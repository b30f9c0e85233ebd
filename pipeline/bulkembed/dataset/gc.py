"""Frees storage in three steps: snapshots expire, a grace goes by, and what only they list is deleted.

Ages count from a snapshot's tombstone, never from the time when a file was written: a file of last year may have left the dataset a
minute ago. All times are by the store's clock."""

from __future__ import annotations

import time
from dataclasses import dataclass

from bulkembed.dataset import paths
from bulkembed.dataset.garbage import Found, Garbage, Reason, Rules, find_garbage, names_of
from bulkembed.dataset.holds import State, beyond, look
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.dataset.store_clock import store_time
from bulkembed.dataset.sweep import sweep
from bulkembed.dataset.tombstones import bury
from bulkembed.errors import HeldBack, SourceError
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join


@dataclass(frozen=True)
class GcRules:
    """What gc keeps. Times are in seconds."""

    keep: int  # newest snapshots of each line
    grace: float  # from a snapshot's tombstone to the deletion of its files
    older_than: float  # age of what no snapshot lists, before it is deleted
    max_share: float  # of the bytes of all data files, that one call may delete


@dataclass(frozen=True)
class GcPlan:
    """What gc does to an output, or has done."""

    output: str
    rules: GcRules
    state: State
    expiring: list[Snapshot]  # get a tombstone now
    freed: list[int]  # numbers of the snapshots whose grace is over
    found: Found

    @property
    def totals(self) -> dict[tuple[Reason, str], tuple[int, int]]:
        """Objects and bytes to delete, by reason and folder."""
        totals: dict[tuple[Reason, str], tuple[int, int]] = {}
        for item in self.found.garbage:
            key = item.reason, folder_of(self.output, item)
            objects, size = totals.get(key, (0, 0))
            totals[key] = objects + 1, size + item.size
        return dict(sorted(totals.items()))

    @property
    def waiting(self) -> list[int]:
        """Numbers of expired snapshots whose files stay for now: the grace is not over, or something holds them."""
        return sorted((self.state.expired.keys() | {record.number for record in self.expiring}) - set(self.freed))

    @property
    def data_bytes(self) -> int:
        """Bytes of data files to delete."""
        return sum(item.size for item in self.found.garbage if folder_of(self.output, item) == "data")

    @property
    def held_back(self) -> str | None:
        """Why nothing is deleted; None where gc may go on."""
        share = self.data_bytes / max(1, self.found.data_bytes)
        if share <= self.rules.max_share:
            return None
        return (
            f"output {self.output}: {share:.0%} of the bytes of all data files would be deleted, more than {self.rules.max_share:.0%}; "
            f"nothing was deleted; if that is right, let them go with --allow-share {min(1.0, share + 0.005):.2f}"
        )


def folder_of(output: str, item: Garbage) -> str:
    """The kind of an object by the folder where it lies: data, receipts, keys, ..."""
    first, second, *_ = item.uri.removeprefix(join(output, "")).split("/")
    return second if first == "_meta" else first


def plan_gc(store: Store, output: str, rules: GcRules) -> GcPlan:
    """What gc would do. It writes nothing, so that ages are by the clock of this host."""
    return plan_at(store, output, rules, time.time())


def gc(store: Store, output: str, rules: GcRules) -> GcPlan:
    """Makes old snapshots expire, and deletes what nothing needs. Returns what it has done.

    Raises HeldBack before it changes anything, where more than `max_share` of the data would go."""
    plan = plan_at(store, output, rules, store_time(store, output))
    if plan.held_back is not None:
        raise HeldBack(plan.held_back)
    for record in plan.expiring:
        bury(store, output, record.number, record.line, f"older than the newest {rules.keep} of its line")
    for uri in plan.state.lapsed:
        store.delete(uri)
    sweep(store, output, plan.state, plan.freed, plan.found)
    return plan


def plan_at(store: Store, output: str, rules: GcRules, now: float) -> GcPlan:
    state = look(store, output, now, {})
    if not state.records:
        raise SourceError(f"output {output}: no finished dataset there (no snapshot), so that nothing says what is needed")
    expiring = beyond(state, rules.keep)
    expired = state.expired | {record.number: now for record in expiring}
    freed = {number for number, since in expired.items() if now - since >= rules.grace and number not in state.held}
    needed = names_of(store, output, (record for number, record in state.records.items() if number not in freed), expired)
    names = names_of(store, output, (state.records[number] for number in sorted(freed)), expired)
    judged = Rules(state, needed, names, lines_of(store, output, state), now - rules.older_than)
    return GcPlan(output, rules, state, expiring, sorted(freed), find_garbage(store, output, judged))


def lines_of(store: Store, output: str, state: State) -> dict[str, str]:
    """The line of each folder that is named after a fingerprint or a line. Other folders belong to a run that has published nothing."""
    fingerprints = {record.fingerprint: record.line for record in state.records.values()}
    lines = {record.line for record in state.records.values()} | {lease.line for lease in state.leases}
    return {line: line for line in [*lines, *store.names(paths.keys_root(output))]} | fingerprints
