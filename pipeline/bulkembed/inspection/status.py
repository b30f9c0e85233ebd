"""The runs below an output, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.snapshots import Snapshot, current_snapshot, snapshots
from bulkembed.records import Counts
from bulkembed.storage.store import Store


@dataclass(frozen=True)
class RunStatus:
    """What the runs of one fingerprint have done."""

    fingerprint: str
    shards: int
    counts: Counts
    provenance: dict[str, str]  # empty before the first shard is done
    line: str | None  # of its snapshots; None before the first
    snapshot: Snapshot | None  # the newest of this fingerprint
    is_live: bool  # whether that one is current


def status_of(store: Store, output: str) -> Iterator[RunStatus]:
    """The runs of each fingerprint that has a run record. Reads every receipt."""
    current = current_snapshot(store, output)
    newest = {snapshot.fingerprint: snapshot for snapshot in snapshots(store, output)}
    for fingerprint in fingerprints(store, output):
        ledger = Ledger(store, output, fingerprint)
        receipts = list(ledger.read_receipts(ledger.done()))
        yield RunStatus(
            fingerprint=fingerprint,
            shards=len(receipts),
            counts=sum((receipt.counts for receipt in receipts), Counts()),
            provenance=receipts[0].provenance if receipts else {},
            line=newest[fingerprint].line if fingerprint in newest else None,
            snapshot=newest.get(fingerprint),
            is_live=current is not None and current == newest.get(fingerprint),
        )
