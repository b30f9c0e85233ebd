"""Shards that are done -> the snapshot that readers see, and back: newest snapshot -> its data files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import create_numbered, newest_number, read_record
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.errors import SourceError, StorageError
from bulkembed.records import Counts
from bulkembed.storage.store import Store
from bulkembed.storage.uris import absolute

MAX_ATTEMPTS = 100  # to take a snapshot number, while other runs take numbers too


@dataclass(frozen=True)
class Snapshot:
    """The live data files of one finished run. The newest snapshot is the dataset."""

    number: int
    fingerprint: str
    created: str  # ISO 8601, UTC
    source: str  # as asked for, absolute
    shards: list[str]  # in source order
    documents: int
    rejects: int
    provenance: dict[str, str] = field(repr=False)

    def holds(self, fingerprint: str, shards: list[str]) -> bool:
        """Whether it lists exactly these shards, in source order."""
        return (self.fingerprint, self.shards) == (fingerprint, shards)

    def same_dataset(self, other: Snapshot) -> bool:
        """Whether both hold the same rows. Their numbers, times and provenance may differ."""
        return replace(self, number=0, created="", provenance={}) == replace(other, number=0, created="", provenance={})

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def publish_snapshot(
    ledger: Ledger, shards: list[str], source: str, provenance: dict[str, str], guard: Callable[[Snapshot, Snapshot], None]
) -> Snapshot:
    """Makes these shards the dataset, unless they are the newest snapshot already.

    The number is taken with a create-only write. A run that loses that race reads again and tries the next number. `guard` sees
    the newest snapshot and the one that would follow it, and raises to prevent the publication."""
    counts = sum((receipt.counts for receipt in ledger.read_receipts(shards)), Counts())
    store, output = ledger.store, ledger.output
    for _ in range(MAX_ATTEMPTS):
        newest = newest_snapshot(store, output)
        snapshot = Snapshot(
            number=newest.number + 1 if newest else 1,
            fingerprint=ledger.fingerprint,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            source=source,
            shards=shards,
            documents=counts.documents,
            rejects=counts.rejects,
            provenance=provenance,
        )
        if newest is not None and newest.same_dataset(snapshot):
            write_current(store, output)
            return newest
        if newest is not None:
            guard(newest, snapshot)
        if create_numbered(store, paths.snapshots_folder(output), snapshot.number, snapshot.to_dict()):
            write_current(store, output)
            return snapshot
    raise StorageError(f"{output}: {MAX_ATTEMPTS} other runs took the next snapshot number first; run again")


def newest_snapshot(store: Store, output: str) -> Snapshot | None:
    folder = paths.snapshots_folder(output)
    number = newest_number(store, folder)
    return read_record(store, paths.numbered_uri(folder, number), lambda record: Snapshot(**record)) if number else None


def newest_dataset(store: Store, output: str) -> tuple[Ledger, Snapshot]:
    """The newest finished dataset below `output`. Raises SourceError where no run has finished yet."""
    snapshot = newest_snapshot(store, output)
    if snapshot is None:
        runs = fingerprints(store, output)
        begun = f"; runs begun: {', '.join(runs)}; run the job again to finish one" if runs else ""
        raise SourceError(f"output {output}: no finished dataset there (no snapshot){begun}")
    return Ledger(store, output, snapshot.fingerprint), snapshot


def data_files(output: str, snapshot: Snapshot) -> list[str]:
    """URIs of the live data files, in source order."""
    return [paths.data_uri(absolute(output), snapshot.fingerprint, shard) for shard in snapshot.shards]


def current_text(output: str, snapshot: Snapshot) -> bytes:
    """The content of current.txt: one URI a line, in UTF-8."""
    return "".join(f"{uri}\n" for uri in data_files(output, snapshot)).encode()


def write_current(store: Store, output: str) -> None:
    """Makes current.txt list the files of the newest snapshot.

    It looks for the newest snapshot again after each write: another run may have published meanwhile, and an older list may
    have replaced a newer one."""
    while (newest := newest_snapshot(store, output)) is not None:
        text = current_text(output, newest)
        if read_current(store, output) != text:
            store.put(paths.current_uri(output), text)
        if is_newest(store, output, newest):
            return


def read_current(store: Store, output: str) -> bytes | None:
    try:
        return store.read(paths.current_uri(output))
    except FileNotFoundError:
        return None


def current_differs(store: Store, output: str, snapshot: Snapshot) -> bool:
    """Whether current.txt does not list the files of this snapshot, although it is the newest."""
    return read_current(store, output) != current_text(output, snapshot) and is_newest(store, output, snapshot)


def is_newest(store: Store, output: str, snapshot: Snapshot) -> bool:
    return newest_number(store, paths.snapshots_folder(output)) == snapshot.number
