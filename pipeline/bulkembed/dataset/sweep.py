"""Deletes what gc has found, in an order that leaves a true state behind wherever it ends.

What live snapshots list is reckoned anew before every batch: a run that was not there when gc looked may have come."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby

from bulkembed import stopping
from bulkembed.dataset.garbage import NO_LINE, Found, Garbage, uris_of
from bulkembed.dataset.holds import State, look
from bulkembed.dataset.store_clock import store_time
from bulkembed.storage.store import Store

THREADS = 32
BATCH = 1000  # objects between two looks at the output


def sweep(store: Store, output: str, state: State, freed: Sequence[int], found: Found) -> None:
    """Deletes the garbage. What has become needed since `state` was seen is taken out of `found`.

    `freed`: numbers of the expired snapshots whose files go."""
    deleted: list[Garbage] = []
    watch = Watch(store, output, state, frozenset(freed))
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches(found.garbage):
            stopping.stop.check()
            free = watch.still_free(batch)
            found.busy.update(item.line or "(unknown)" for item in batch if watch.is_busy(item))
            for _ in pool.map(store.delete, [item.uri for item in free]):
                pass
            deleted += free
    found.garbage = deleted


def batches(garbage: Sequence[Garbage]) -> Iterator[list[Garbage]]:
    """Batches in the order of their turn. A batch is deleted in any order, so that it has one turn."""
    for _, same in groupby(sorted(garbage, key=lambda item: item.turn), key=lambda item: item.turn):
        group = list(same)
        yield from (group[first : first + BATCH] for first in range(0, len(group), BATCH))


class Watch:
    """Sees what comes to an output while it is swept."""

    def __init__(self, store: Store, output: str, state: State, freed: frozenset[int]) -> None:
        self.store, self.output, self.state, self.freed = store, output, state, freed
        self.seen = state.records.keys() - freed  # numbers of the snapshots whose names are known
        self.needed: set[str] = set()  # URIs that are needed after all
        self.lines: set[str] = set()  # where a run was under way at any look: what is left of a line stays whole

    def still_free(self, batch: Sequence[Garbage]) -> list[Garbage]:
        """Those of the batch that nothing needs now."""
        now = store_time(self.store, self.output)
        self.state = look(self.store, self.output, now, self.state.records)
        expired = self.state.expired
        needed = {number for number in self.state.records if number not in self.freed or number in self.state.held or number not in expired}
        for number in sorted(needed - self.seen):
            self.needed |= uris_of(self.store, self.output, self.state.records[number], expired)
        self.seen |= needed
        self.lines |= {lease.line for lease in self.state.leases}
        return [item for item in batch if item.uri not in self.needed and not self.is_busy(item)]

    def is_busy(self, item: Garbage) -> bool:
        """Whether a run that came meanwhile may use the object."""
        return item.line != NO_LINE and (bool(self.lines) if item.line is None else item.line in self.lines)
