"""Erases ids: their rows leave every line now, and storage with the snapshots that hold them.

The order makes a crash harmless: first the list, so that no run brings the rows back, then new snapshots without them, then the
tombstones of the old ones. The same command goes on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields

import numpy as np

from bulkembed import row_keys
from bulkembed.dataset import heads, manifests
from bulkembed.dataset.erasures import add_erasure, are_in, forgotten
from bulkembed.dataset.holds import newest_of_lines
from bulkembed.dataset.publishing import ParentMoved, publish_snapshot
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Draft, Snapshot, snapshot_files, snapshots
from bulkembed.dataset.tags import tags
from bulkembed.dataset.tombstones import bury
from bulkembed.errors import ConfigError, SourceError, StorageError
from bulkembed.row_keys import Hashes
from bulkembed.runs.erased_files import Seen, look_at, without
from bulkembed.runs.id_files import parse_ids
from bulkembed.storage.store import Store

MAX_ATTEMPTS = 100  # to publish onto a line, while runs publish there too


@dataclass(frozen=True)
class IdFile:
    """A file of ids that a user gave."""

    name: str
    data: bytes
    column: str  # of the ids, where it is Parquet


@dataclass(frozen=True)
class Forgotten:
    """What `forget` has done."""

    ids: int  # different ids in the file
    found: int  # of them, that a snapshot held
    documents: int  # that left the newest snapshots of all lines
    published: list[int]  # numbers of the new snapshots, without those documents
    expired: list[int]  # numbers of the snapshots that held them
    tagged: dict[str, int]  # expired snapshots that gc does not free while they have a tag, by the tag

    @property
    def not_found(self) -> int:
        return self.ids - self.found


def forget(store: Store, output: str, file: IdFile) -> Forgotten:
    """Erases the ids of a file.

    Raises ConfigError where the file holds what is no id of this dataset, SourceError where there is no dataset."""
    count, ids = ids_of(store, output, file)
    number, seen = add_erasure(store, output, "forget", ids), Seen()
    erased = forgotten(store, output, number)  # with the ids of an earlier call that was killed: the new snapshots heed the whole list
    for snapshot in snapshots(store, output):
        look_at(store, output, snapshot.fingerprint, snapshot_files(store, output, snapshot), erased, seen)
    published, documents = [], 0
    for old in newest_snapshots(store, output):
        new, dropped = erase(store, output, old, erased, number, seen)
        published += [] if new is None else [new.number]
        documents += dropped
    heads.refresh_head(store, output)
    expired = list(bury_holders(store, output, seen))
    held = np.concatenate([row_keys.no_hashes(), *(holder.ids for holder in seen.values() if holder is not None)])
    n_found = len(np.unique(held[are_in(held, ids)], axis=0))
    tagged = {name: number for name, number in tags(store, output).items() if number in expired}
    return Forgotten(count, n_found, documents, published, expired, tagged)


def remember(store: Store, output: str, file: IdFile) -> tuple[int, int]:
    """Takes the ids of a file off the list: how many different ids those are, and how many of them were on it."""
    count, ids = ids_of(store, output, file)
    listed = int(np.count_nonzero(are_in(ids, forgotten(store, output))))
    add_erasure(store, output, "undo", ids)
    return count, listed


def ids_of(store: Store, output: str, file: IdFile) -> tuple[int, Hashes]:
    """How many different ids the file holds, and their hashes in the type of the ids of each line."""
    kinds = {}
    for snapshot in newest_snapshots(store, output):
        carried = Ledger(store, output, snapshot.fingerprint).read_carried_schema()
        if carried is None:
            raise SourceError(f"output {output}: _meta/runs/{snapshot.fingerprint}.json is missing, so the type of its ids is unknown")
        kinds[str(carried.field("id").type)] = carried.field("id").type
    hashes = [np.unique(row_keys.id_hashes(parse_ids(file.data, file.name, file.column, kind)), axis=0) for kind in kinds.values()]
    if not len(hashes[0]):
        raise ConfigError(f"ids: {file.name} holds no id")
    return len(hashes[0]), np.concatenate(hashes)


def newest_snapshots(store: Store, output: str) -> Sequence[Snapshot]:
    """The newest snapshot of each line, whole ones and trials apart. Raises SourceError where there is none."""
    live = snapshots(store, output)
    newest = newest_of_lines(live)
    if not live:
        raise SourceError(f"output {output}: no finished dataset there (no snapshot)")
    return [snapshot for snapshot in live if snapshot.number in newest]


def erase(store: Store, output: str, newest: Snapshot, erased: Hashes, number: int, seen: Seen) -> tuple[Snapshot | None, int]:
    """A new snapshot without the documents of erased ids, and how many these are; None where the newest of the line holds none.

    `number`: of the list of erased ids. `seen`: files that were looked at; more are added."""
    for _ in range(MAX_ATTEMPTS):
        names = snapshot_files(store, output, newest)
        look_at(store, output, newest.fingerprint, names, erased, seen)
        holders = {name: holder for name in names if (holder := seen[newest.fingerprint, name]) is not None}
        if not holders:
            return None, 0
        dropped = sum(len(holder.ids) for holder in holders.values())
        values = {item.name: getattr(newest, item.name) for item in fields(Draft)}
        heeded = newest.erasure if lacks_rows(store, output, newest, erased) else number
        changes = {"parent": newest.number, "run_key": None, "erasure": heeded, "forgotten": newest.forgotten + dropped}
        token = newest.manifest
        files = without(store, output, newest, manifests.read_files(store, output, token), holders)
        sources, rejected = manifests.read_sources(store, output, token), manifests.read_rejected(store, output, token)
        try:
            draft = Draft(**values | changes)
            return publish_snapshot(store, output, draft, files, sources, rejected, lambda parent, following: None), dropped
        except ParentMoved as moved:
            newest = moved.newest or newest
    raise StorageError(f"{output}: {MAX_ATTEMPTS} runs published onto this line first; try again")


def lacks_rows(store: Store, output: str, snapshot: Snapshot, erased: Hashes) -> bool:
    """Whether ids have left the list since the snapshot was made. Then it goes on to heed its older list, so that the next run looks for
    their rows."""
    return not are_in(forgotten(store, output, snapshot.erasure), erased).all()


def bury_holders(store: Store, output: str, seen: Seen) -> Iterator[int]:
    """Makes the older snapshots expire that hold documents of erased ids. Yields their numbers."""
    live = snapshots(store, output)
    newest = newest_of_lines(live)
    for snapshot in live:
        names = snapshot_files(store, output, snapshot) if snapshot.number not in newest else []
        if any(seen.get((snapshot.fingerprint, name)) is not None for name in names):
            bury(store, output, snapshot.number, snapshot.line, "holds rows of erased ids")
            yield snapshot.number
