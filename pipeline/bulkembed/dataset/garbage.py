"""What lies below an output and no snapshot needs any more, by one listing of each folder. Looks only, and deletes nothing.

The names that snapshots list are held in memory, one folder at a time: some 100 bytes a file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Literal, NamedTuple

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.holds import State
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.storage.listing import StoredObject
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

NO_LINE = ""  # of objects that are one run's own, whatever its line
FIRST_PART = "files-00000.parquet"  # of a manifest
Reason = Literal["expired snapshots", "no snapshot"]
EXPIRED: Reason = "expired snapshots"
ORPHAN: Reason = "no snapshot"


class Turn(IntEnum):
    """The order of deletion, so that what is left after a crash is true.

    A receipt goes before its data file, since it says that the file is there. A manifest goes last, since it says what is to be
    deleted, and its first part goes before the others: without that part, all that it lists is gone."""

    RECEIPT = 0
    FILE = 1
    FIRST_PART = 2
    OTHER_PART = 3


class Garbage(NamedTuple):
    """An object that nothing needs."""

    uri: str
    size: int
    reason: Reason
    line: str | None  # of the snapshots it belongs to, NO_LINE, or None where that cannot be told
    turn: Turn


@dataclass
class Found:
    """All that may be deleted."""

    garbage: list[Garbage] = field(default_factory=list)
    busy: Counter[str] = field(default_factory=Counter)  # objects that stay because a run is on their line, by line
    data_bytes: int = 0  # of all data files


@dataclass(frozen=True)
class Names:
    """What some snapshots list."""

    files: dict[str, set[str]]  # names of data files, by fingerprint
    sources: dict[str, set[str]]  # ids of object versions, by line
    tokens: set[str]  # of their manifests


@dataclass(frozen=True)
class Rules:
    """By what an object is judged."""

    state: State
    needed: Names  # of snapshots that are live or held, and of those within the grace
    freed: Names  # of the other expired snapshots
    lines: dict[str, str]  # line by the name of a folder: a fingerprint or a line
    orphans_before: float  # what no snapshot lists is garbage if it was written before

    def is_old(self, item: StoredObject) -> bool:
        """Whether an object that no snapshot lists has lain there long enough. A store without times lets none go."""
        return item.modified is not None and item.modified < self.orphans_before

    def is_left(self, item: StoredObject) -> bool:
        """Whether an object that only the run that wrote it needs is old, and older than every run that is under way."""
        started = min((lease.started for lease in self.state.leases), default=self.state.now)
        return self.is_old(item) and item.modified is not None and item.modified < started

    def is_busy(self, line: str | None) -> bool:
        """Whether a run that is under way may use objects of this line."""
        leased = {lease.line for lease in self.state.leases}
        return bool(leased) if line is None else line in leased


def names_of(store: Store, output: str, snapshots: Iterable[Snapshot], expired: Collection[int]) -> Names:
    """What these snapshots list. An expired one lists nothing after its manifest has gone.

    Raises StorageError where a manifest is missing or damaged."""
    names = Names({}, {}, set())
    for snapshot in snapshots:
        names.tokens.add(snapshot.manifest)
        if snapshot.number in expired and not manifests.stands(store, output, snapshot.manifest):
            continue
        names.files.setdefault(snapshot.fingerprint, set()).update(manifests.read_names(store, output, snapshot.manifest))
        names.sources.setdefault(snapshot.line, set()).update(manifests.read_source_ids(store, output, snapshot.manifest))
    return names


def uris_of(store: Store, output: str, snapshot: Snapshot, expired: Collection[int]) -> set[str]:
    """The URIs of all that a snapshot needs, in the spelling of `find_garbage`."""
    names, at = names_of(store, output, [snapshot], expired), snapshot.fingerprint
    files = (name for group in names.files.values() for name in group)
    ids = (name for group in names.sources.values() for name in group)
    makers: tuple[Callable[[str, str, str], str], ...] = (paths.data_uri, paths.receipt_uri, paths.rejects_uri)
    found = {make(output, at, name) for name in files for make in makers}
    found |= {make(output, snapshot.line, name) for name in ids for make in (paths.keys_uri, paths.rejects_uri)}
    folder = paths.manifest_folder(output, snapshot.manifest)
    return found | {join(folder, name) for name in store.names(folder)}


def find_garbage(store: Store, output: str, rules: Rules) -> Found:
    """Everything that nothing needs. Objects of lines with a run under way are counted, and stay."""
    found = Found()
    for items in (
        folder_garbage(store, paths.data_root(output), ".parquet", Turn.FILE, rules, found),
        folder_garbage(store, paths.receipts_root(output), ".json", Turn.RECEIPT, rules, None),
        folder_garbage(store, paths.rejects_root(output), ".parquet", Turn.FILE, rules, None),
        folder_garbage(store, paths.keys_root(output), ".parquet", Turn.FILE, rules, None),
        manifest_garbage(store, output, rules),
        leftovers(store, output, rules),
    ):
        for item in items:
            if rules.is_busy(item.line):
                found.busy[item.line or "(unknown)"] += 1
            else:
                found.garbage.append(item)
    return found


def folder_garbage(store: Store, root: str, suffix: str, turn: Turn, rules: Rules, found: Found | None) -> Iterator[Garbage]:
    """Of a folder with a folder for each fingerprint or line. `found`: sums up the bytes.

    An object with a name that bulkembed does not give is left alone, whatever its age."""
    for folder in store.names(root):
        needed = rules.needed.files.get(folder, set()) | rules.needed.sources.get(folder, set())
        freed = rules.freed.files.get(folder, set()) | rules.freed.sources.get(folder, set())
        line = rules.lines.get(folder)
        for item in store.listed(join(root, folder)):
            if found is not None:
                found.data_bytes += item.size
            reason = reason_of(item, suffix, needed, freed, rules)
            if reason is not None:
                yield Garbage(join(root, folder, item.relative_path), item.size, reason, line, turn)


def reason_of(item: StoredObject, suffix: str, needed: Collection[str], freed: Collection[str], rules: Rules) -> Reason | None:
    name = item.relative_path
    if name.startswith("."):  # a local file that was not written to its end
        return ORPHAN if rules.is_old(item) else None
    stem = name.removesuffix(suffix)
    if stem == name or "/" in name or stem in needed:
        return None
    if stem in freed:
        return EXPIRED
    return ORPHAN if rules.is_old(item) else None


def manifest_garbage(store: Store, output: str, rules: Rules) -> Iterator[Garbage]:
    """Manifests of freed snapshots, and those that an aborted run left."""
    records = {record.manifest: record for record in rules.state.records.values()}
    root = paths.manifests_folder(output)
    for item in store.listed(root):
        token, _, part = item.relative_path.partition("/")
        record = records.get(token)
        if token in rules.needed.tokens or (record is None and not rules.is_left(item)):
            continue
        turn = Turn.FIRST_PART if part == FIRST_PART else Turn.OTHER_PART
        line, reason = (record.line, EXPIRED) if record else (NO_LINE, ORPHAN)
        yield Garbage(join(root, item.relative_path), item.size, reason, line, turn)


def leftovers(store: Store, output: str, rules: Rules) -> Iterator[Garbage]:
    """What runs and readers that died have left: exchanged tables, leases of earlier runs, and requests for the time."""
    for root in (paths.exchange_root(output), paths.clock_folder(output)):
        for item in store.listed(root):
            if rules.is_left(item):
                yield Garbage(join(root, item.relative_path), item.size, ORPHAN, NO_LINE, Turn.FILE)
    for line in store.names(paths.leases_root(output)):
        folder = paths.leases_folder(output, line)
        leases = store.listed(folder)
        newest = max((item.relative_path.partition(".")[0] for item in leases), default="")  # its number is never taken again
        for item in leases:
            if item.relative_path.partition(".")[0] < newest and rules.is_left(item):
                yield Garbage(join(folder, item.relative_path), item.size, ORPHAN, NO_LINE, Turn.FILE)
