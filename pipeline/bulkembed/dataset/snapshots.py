"""Snapshots of an output: published onto the parent that they were planned from, and read back.

Numbers have no gaps over all lines, and are never used twice. The record of a snapshot is therefore never deleted: a tombstone beside it
says that gc has expired it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.head_records import MAX_ATTEMPTS, newest_head
from bulkembed.dataset.json_records import create_numbered, listed_numbers, read_record, record_bytes
from bulkembed.dataset.manifests import DataFile, Rejected, SourceVersion
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.tombstones import is_expired, require_live
from bulkembed.errors import BulkembedError, SourceError, StorageError
from bulkembed.storage.store import Store
from bulkembed.storage.uris import absolute


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a run says of the snapshot that it wants to publish. What can be counted is counted as the manifest is written."""

    parent: int  # number of the snapshot that it was planned from; 0: none
    line: str
    fingerprint: str  # of its data files
    source: str  # as asked for, absolute
    limit: int | None  # rows that the run was limited to
    run_key: str | None
    provenance: dict[str, str] = field(repr=False)
    erasure: int = 0  # number of the newest list of erased ids that it heeds (see dataset/erasures); 0: none
    forgotten: int = 0  # source rows that are no document because their ids are on that list
    unreadable: list[str] = field(default_factory=list)  # objects that could not be read, and that it does without, as was asked for

    @property
    def limited(self) -> bool:
        """Whether it is a trial, which never takes the place of a whole dataset."""
        return self.limit is not None


@dataclass(frozen=True, kw_only=True)
class Snapshot(Draft):
    """The live data files of one finished run, in its manifest."""

    number: int
    created: str  # ISO 8601, UTC
    source_identity: str  # digest of the ids of the object versions
    objects: int
    files: int
    documents: int
    rows: int  # of the data files: more than documents where windows are rows
    rejects: int  # source rows that are no document
    manifest: str  # token

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class ParentMoved(BulkembedError):
    """Another run has published onto this line since the draft was planned, or ids were erased. The difference must be taken again,
    from `newest`."""

    def __init__(self, newest: Snapshot | None) -> None:
        super().__init__(f"snapshot {newest.number if newest else 0} was published since this run was planned; run again")
        self.newest = newest


Guard = Callable[[Snapshot | None, Snapshot], None]


def publish_snapshot(
    store: Store,
    output: str,
    draft: Draft,
    files: Iterable[DataFile],
    sources: Iterable[SourceVersion],
    rejected: Iterable[Rejected],
    guard: Guard,
) -> Snapshot:
    """Writes the manifest, then the snapshot under the next free number. `files` come in the order of their names.

    Raises ParentMoved where the newest snapshot of the line, whole or limited as the draft is, is not the draft's parent. `guard` sees
    the parent and the snapshot that would follow it, and raises to prevent the publication."""
    require_parent(store, output, draft, numbers_of(store, output))
    candidate = write_manifest(store, output, draft, files, sources, rejected)
    for _ in range(MAX_ATTEMPTS):
        numbers = numbers_of(store, output)
        newest = require_parent(store, output, draft, numbers)
        if newest is not None:
            mark_run_key(store, output, newest)  # its own run may have died before it did
        following = replace(candidate, number=numbers.last + 1)
        guard(newest, following)
        if take_number(store, output, following):
            mark_run_key(store, output, following)
            return following
    raise StorageError(f"{output}: {MAX_ATTEMPTS} other runs took the next snapshot number first; run again")


def write_manifest(
    store: Store, output: str, draft: Draft, files: Iterable[DataFile], sources: Iterable[SourceVersion], rejected: Iterable[Rejected]
) -> Snapshot:
    """The snapshot of a draft, without a number yet, whose manifest is written."""
    token = manifests.new_token()
    n_files = documents = rows = objects = rejects = 0
    for file in in_order(manifests.write_parts(store, output, token, DataFile, files)):
        n_files, documents, rows = n_files + 1, documents + file.documents, rows + file.rows
    ids = []
    for source in manifests.write_parts(store, output, token, SourceVersion, sources):
        objects, rejects = objects + 1, rejects + source.rejects
        ids.append(source.object_id)
    rejects += sum(content.rows for content in manifests.write_parts(store, output, token, Rejected, rejected))
    return Snapshot(
        **vars(draft),
        number=0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source_identity=identity_of(ids),
        objects=objects,
        files=n_files,
        documents=documents,
        rows=rows,
        rejects=rejects,
        manifest=token,
    )


def in_order(files: Iterable[DataFile]) -> Iterator[DataFile]:
    """The files again. Raises ValueError where a name does not come after the one before it, so that none is listed twice."""
    last = ""
    for file in files:
        if file.name <= last:
            raise ValueError(f"data file {file.name} comes after {last}")
        last = file.name
        yield file


def identity_of(object_ids: Iterable[str]) -> str:
    """The digest of a set of object versions: equal sets were read from equal sources."""
    return sha256("\n".join(sorted(object_ids)).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Numbers:
    """Numbers of the snapshots of an output, ascending."""

    taken: list[int]  # also those of expired snapshots
    live: list[int]

    @property
    def last(self) -> int:
        return self.taken[-1] if self.taken else 0


def numbers_of(store: Store, output: str) -> Numbers:
    expired = set(listed_numbers(store, paths.tombstones_folder(output)))
    written = set(listed_numbers(store, paths.snapshots_folder(output)))
    return Numbers(sorted(written | expired), sorted(written - expired))


def require_parent(store: Store, output: str, draft: Draft, numbers: Numbers) -> Snapshot | None:
    """The parent of a draft. Raises ParentMoved where it is not the newest snapshot of its line any more."""
    newest = newest_among(store, output, numbers, draft.line, draft.limited)
    if (newest.number if newest else 0) != draft.parent:
        raise ParentMoved(newest)
    return newest


def take_number(store: Store, output: str, snapshot: Snapshot) -> bool:
    """Publishes a snapshot. False where another run took the number first."""
    folder = paths.snapshots_folder(output)
    if create_numbered(store, folder, snapshot.number, snapshot.to_dict()):
        return True
    # A fault may have hidden that this run itself has written it. No other snapshot has its manifest.
    return read_snapshot(store, output, snapshot.number).manifest == snapshot.manifest


def read_snapshot(store: Store, output: str, number: int) -> Snapshot:
    """The record of a snapshot, also of an expired one."""
    uri = paths.numbered_uri(paths.snapshots_folder(output), number)
    return read_record(store, uri, lambda record: Snapshot(**record))


def newest_first(store: Store, output: str, numbers: Numbers) -> Iterator[Snapshot]:
    """The live snapshots. Each is read as it is asked for."""
    return (read_snapshot(store, output, number) for number in reversed(numbers.live))


def newest_among(store: Store, output: str, numbers: Numbers, line: str, limited: bool) -> Snapshot | None:
    ours = (each for each in newest_first(store, output, numbers) if (each.line, each.limited) == (line, limited))
    return next(ours, None)


def newest_of_line(store: Store, output: str, line: str, limited: bool) -> Snapshot | None:
    """The newest live snapshot of a line: of its whole ones, or of its limited ones."""
    return newest_among(store, output, numbers_of(store, output), line, limited)


def current_snapshot(store: Store, output: str) -> Snapshot | None:
    """The dataset: the newest whole snapshot of the head's line, or its newest limited one where it has no other."""
    numbers = numbers_of(store, output)
    line, trial = current_line(store, output, numbers), None
    for snapshot in newest_first(store, output, numbers) if line else ():
        if snapshot.line == line and not snapshot.limited:
            return snapshot
        if snapshot.line == line and trial is None:
            trial = snapshot
    return trial


def current_line(store: Store, output: str, numbers: Numbers) -> str | None:
    """The line that the head names. Before there is a head, it is the line of the first snapshot, whose run may have died before it."""
    head = newest_head(store, output)
    if head is not None:
        return head.line
    return read_snapshot(store, output, numbers.taken[0]).line if numbers.taken else None


def snapshots(store: Store, output: str) -> list[Snapshot]:
    """All live snapshots of all lines, ascending by number."""
    return list(newest_first(store, output, numbers_of(store, output)))[::-1]


def snapshot_of(store: Store, output: str, number: int) -> Snapshot:
    """The live snapshot of this number. Raises SourceError where there is none."""
    require_live(store, output, number)
    try:
        return read_snapshot(store, output, number)
    except FileNotFoundError:
        raise SourceError(f"output {output}: there is no snapshot {number}; `bulkembed snapshots` lists them") from None


def stored_snapshot(store: Store, output: str, number: int) -> Snapshot:
    """As `snapshot_of`, and also an expired snapshot, for as long as gc leaves its files: a feed may still lead away from it."""
    if not is_expired(store, output, number):
        return snapshot_of(store, output, number)
    snapshot = read_snapshot(store, output, number)
    return snapshot if manifests.stands(store, output, snapshot.manifest) else snapshot_of(store, output, number)


def ancestors(store: Store, output: str, snapshot: Snapshot) -> Iterator[Snapshot]:
    """The parent of a snapshot, its parent, and so on, also expired ones."""
    while snapshot.parent:
        snapshot = read_snapshot(store, output, snapshot.parent)
        yield snapshot


def newest_dataset(store: Store, output: str, number: int | None = None) -> tuple[Ledger, Snapshot]:
    """The current dataset below `output`, or the snapshot of this number. Raises SourceError where there is none."""
    snapshot = snapshot_of(store, output, number) if number is not None else current_snapshot(store, output)
    if snapshot is None:
        runs = fingerprints(store, output)
        begun = f"; runs begun: {', '.join(runs)}; run the job again to finish one" if runs else ""
        raise SourceError(f"output {output}: no finished dataset there (no snapshot){begun}")
    return Ledger(store, output, snapshot.fingerprint), snapshot


def snapshot_files(store: Store, output: str, snapshot: Snapshot) -> list[str]:
    """Names of the live data files, ascending. Raises StorageError where the manifest does not hold what the snapshot says."""
    names = manifests.read_names(store, output, snapshot.manifest)
    if len(names) != snapshot.files:
        raise StorageError(f"{paths.manifest_folder(output, snapshot.manifest)}: is damaged: {len(names)} files of {snapshot.files}")
    return names


def data_files(store: Store, output: str, snapshot: Snapshot) -> list[str]:
    """URIs of the live data files, in the order of their names."""
    at = absolute(output)
    return [paths.data_uri(at, snapshot.fingerprint, name) for name in snapshot_files(store, output, snapshot)]


def mark_run_key(store: Store, output: str, snapshot: Snapshot) -> None:
    """Makes the run key of a snapshot known, if it has one. A trial is not what a scheduler asks for."""
    if snapshot.run_key is not None and not snapshot.limited:
        uri = paths.run_key_uri(output, snapshot.line, snapshot.run_key)
        store.create(uri, record_bytes({"snapshot": snapshot.number}))


def find_run_key(store: Store, output: str, line: str, run_key: str) -> int | None:
    """Number of the snapshot that a run of this key has published, however old it is; None where none has."""
    try:
        return read_record(store, paths.run_key_uri(output, line, run_key), lambda record: int(record["snapshot"]))
    except FileNotFoundError:
        newest = newest_of_line(store, output, line, limited=False)  # its run may have died before it marked the key
        return newest.number if newest is not None and newest.run_key == run_key else None
