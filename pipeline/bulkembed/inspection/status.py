"""The runs below an output, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.snapshots import Snapshot, current_snapshot
from bulkembed.records import Counts
from bulkembed.storage.store import Store


@dataclass(frozen=True)
class RunStatus:
    """What the runs of one fingerprint have done."""

    fingerprint: str
    shards: int
    counts: Counts
    provenance: dict[str, str]  # empty before the first shard is done
    snapshot: Snapshot | None  # the current one of the output, where it is of this fingerprint

    @property
    def is_live(self) -> bool:
        return self.snapshot is not None


def status_of(store: Store, output: str) -> Iterator[RunStatus]:
    """The runs of each fingerprint that has a run record. Reads every receipt."""
    newest = current_snapshot(store, output)
    for fingerprint in fingerprints(store, output):
        ledger = Ledger(store, output, fingerprint)
        receipts = list(ledger.read_receipts(ledger.done()))
        yield RunStatus(
            fingerprint=fingerprint,
            shards=len(receipts),
            counts=sum((receipt.counts for receipt in receipts), Counts()),
            provenance=receipts[0].provenance if receipts else {},
            snapshot=newest if newest is not None and newest.fingerprint == fingerprint else None,
        )
