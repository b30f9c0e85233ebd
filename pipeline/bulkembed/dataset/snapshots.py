"""Snapshots of an output, and which of them is current.

Numbers have no gaps over all lines, and are never used twice. The record of a snapshot is therefore never deleted: a tombstone beside it
says that gc has expired it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from hashlib import sha256
from typing import Any

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.erasures import newest_erasure
from bulkembed.dataset.head_records import Head, newest_head
from bulkembed.dataset.json_records import listed_numbers, numbers_among, read_record, typed
from bulkembed.dataset.manifests import Manifest
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.tombstones import is_expired, require_live
from bulkembed.errors import SourceError
from bulkembed.shards import FormatName
from bulkembed.storage.store import Store
from bulkembed.storage.uris import absolute


@dataclass(frozen=True, kw_only=True)
class Draft:
    """What a run says of the snapshot that it wants to publish. What can be counted is counted as the manifest is written."""

    parent: int  # number of the snapshot that it was planned from; 0: none
    line: str
    fingerprint: str  # of its data files
    sources: list[str]  # places, as asked for, absolute, sorted
    limit: int | None  # rows that the run was limited to
    run_key: str | None
    provenance: dict[str, str] = field(repr=False)
    erasure: int = 0  # number of the newest list of erased ids that it heeds (see dataset/erasures); 0: none
    forgotten: int = 0  # source rows that are no document because their ids are on that list
    unreadable: list[str] = field(default_factory=list)  # objects that could not be read, and that it does without, as was asked for
    json_text: list[str] = field(default_factory=list)  # columns that are JSON text because no other type holds their values
    exclude: list[str] = field(default_factory=list)  # globs of names in the sources that were not read, as was asked for, sorted
    format: FormatName | None = None  # of all objects of the sources, as was asked for; None: as each tells it
    left_out: list[dict[str, Any]] = field(default_factory=list)  # names that were not read: reason, count, examples
    tables: list[str] = field(default_factory=list)  # sources that are tables: the place, the version and the format

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


def read_snapshot(store: Store, output: str, number: int) -> Snapshot:
    """The record of a snapshot, also of an expired one."""
    uri = paths.numbered_uri(paths.snapshots_folder(output), number)
    return read_record(store, uri, typed(Snapshot))


class View:
    """An output at one look: each folder is listed once, and each record is read once, when it is first asked for.

    What others write after that is seen by another look."""

    def __init__(self, store: Store, output: str) -> None:
        self.store, self.output = store, output
        self.records: dict[int, Snapshot] = {}  # by number
        self.manifests: dict[str, Manifest] = {}  # by token

    def again(self) -> View:
        """A new look. It shares the records of snapshots and the manifests that were read, since these never change."""
        view = View(self.store, self.output)
        view.records, view.manifests = self.records, self.manifests
        return view

    @cached_property
    def tombstones(self) -> list[str]:
        return self.store.names(paths.tombstones_folder(self.output))

    @property
    def doubted(self) -> set[int]:
        """Numbers of the snapshots of which `verify --repair` has removed something: the next run takes nothing of them on trust."""
        return set(numbers_among(self.tombstones, ".doubt"))

    @cached_property
    def numbers(self) -> Numbers:
        expired = set(numbers_among(self.tombstones, ".json"))
        written = set(listed_numbers(self.store, paths.snapshots_folder(self.output)))
        return Numbers(sorted(written | expired), sorted(written - expired))

    def snapshot(self, number: int) -> Snapshot:
        """The record of a snapshot, also of an expired one."""
        if number not in self.records:
            self.records[number] = read_snapshot(self.store, self.output, number)
        return self.records[number]

    def newest_first(self) -> Iterator[Snapshot]:
        """The live snapshots of all lines. Each is read as it is asked for."""
        return (self.snapshot(number) for number in reversed(self.numbers.live))

    def newest_of_line(self, line: str, limited: bool) -> Snapshot | None:
        """The newest live snapshot of a line: of its whole ones, or of its limited ones."""
        ours = (each for each in self.newest_first() if (each.line, each.limited) == (line, limited))
        return next(ours, None)

    @cached_property
    def head(self) -> Head | None:
        return newest_head(self.store, self.output)

    @property
    def line(self) -> str | None:
        """The current line: the head's. Before there is a head, it is that of the first snapshot, whose run may have died before it."""
        if self.head is not None:
            return self.head.line
        return self.snapshot(self.numbers.taken[0]).line if self.numbers.taken else None

    @cached_property
    def current(self) -> Snapshot | None:
        """The dataset: the newest whole snapshot of the current line, or its newest limited one where it has no other."""
        trial = None
        for snapshot in self.newest_first() if self.line else ():
            if snapshot.line == self.line and not snapshot.limited:
                return snapshot
            if snapshot.line == self.line and trial is None:
                trial = snapshot
        return trial

    @cached_property
    def erasure(self) -> int:
        """The number of the newest list of erased ids; 0 where there is none."""
        return newest_erasure(self.store, self.output)

    def manifest(self, snapshot: Snapshot) -> Manifest:
        """What a snapshot lists."""
        if snapshot.manifest not in self.manifests:
            self.manifests[snapshot.manifest] = Manifest(self.store, self.output, snapshot.manifest, snapshot.files)
        return self.manifests[snapshot.manifest]


def newest_of_line(store: Store, output: str, line: str, limited: bool) -> Snapshot | None:
    """The newest live snapshot of a line: of its whole ones, or of its limited ones."""
    return View(store, output).newest_of_line(line, limited)


def current_snapshot(store: Store, output: str) -> Snapshot | None:
    """The dataset, as readers get it now."""
    return View(store, output).current


def snapshots(store: Store, output: str) -> list[Snapshot]:
    """All live snapshots of all lines, ascending by number."""
    return list(View(store, output).newest_first())[::-1]


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
    return View(store, output).manifest(snapshot).names


def data_files(store: Store, output: str, snapshot: Snapshot) -> list[str]:
    """URIs of the live data files, in the order of their names."""
    return uris_of(output, snapshot, snapshot_files(store, output, snapshot))


def uris_of(output: str, snapshot: Snapshot, names: Iterable[str]) -> list[str]:
    """URIs of data files of a snapshot, also outside this working folder."""
    return paths.data_uris(absolute(output), snapshot.fingerprint, names)
