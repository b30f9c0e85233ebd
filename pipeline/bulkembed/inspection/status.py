"""The runs below an output, and how far each has come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from bulkembed.dataset import manifests
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.snapshots import Snapshot, current_snapshot, snapshots
from bulkembed.records import Counts
from bulkembed.storage.store import Store


@dataclass(frozen=True)
class RunStatus:
    """What the runs of one fingerprint have done."""

    fingerprint: str
    shards: int  # files that they have published, also those that no snapshot lists any more
    counts: Counts  # of the snapshot; before the first, of everything published
    provenance: dict[str, str]  # empty before the first shard is done
    line: str | None  # of its snapshots; None before the first
    snapshot: Snapshot | None  # the current one if it has this fingerprint; else the newest whole one, else the newest trial
    is_current: bool  # whether that one is current


def status_of(store: Store, output: str) -> Iterator[RunStatus]:
    """The runs of each fingerprint that has a run record. It reads every receipt of those that have no snapshot.

    A line with int8 ranges has a record of its own, which stands for no run: its vectors are of the fingerprints with ranges."""
    current = current_snapshot(store, output)
    published = snapshots(store, output)
    newest = {snapshot.fingerprint: snapshot for snapshot in sorted(published, key=lambda item: (item.limit is None, item.number))}
    newest |= {current.fingerprint: current} if current else {}
    lines_of_others = {snapshot.line for snapshot in published} - newest.keys()
    for fingerprint in fingerprints(store, output):
        ledger = Ledger(store, output, fingerprint)
        names, snapshot = ledger.done(), newest.get(fingerprint)
        if fingerprint in lines_of_others and not names:
            continue
        receipts = [] if snapshot else list(ledger.read_receipts(names))
        provenance = snapshot.provenance if snapshot else receipts[0].provenance if receipts else {}
        yield RunStatus(
            fingerprint=fingerprint,
            shards=len(names),
            counts=counts_of(store, output, snapshot) if snapshot else sum((receipt.counts for receipt in receipts), Counts()),
            provenance=provenance,
            line=snapshot.line if snapshot else None,
            snapshot=snapshot,
            is_current=current is not None and current == snapshot,
        )


def counts_of(store: Store, output: str, snapshot: Snapshot) -> Counts:
    """What a snapshot holds."""
    tokens = sum(file.tokens for file in manifests.read_files(store, output, snapshot.manifest))
    rows = snapshot.documents + snapshot.rejects
    return Counts(rows=rows, documents=snapshot.documents, vectors=snapshot.rows, rejects=snapshot.rejects, tokens=tokens)
