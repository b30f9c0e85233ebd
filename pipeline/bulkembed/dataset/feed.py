"""The changes from one snapshot to another, written for a loader that keeps a copy of the dataset elsewhere.

<feed>/upserts/part-<number>.parquet   rows of the newer snapshot that are new or changed
<feed>/deletes/part-<number>.parquet   keys that are gone
<feed>/_feed.json                      written last: what the feed holds, and the SHA-256 of each file
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from hashlib import sha256
from typing import Any, Literal, get_args

import pyarrow as pa

from bulkembed.dataset import paths
from bulkembed.dataset.feed_rows import Step, delete_tables, float32_lists, upsert_tables, uuid_keys
from bulkembed.dataset.json_records import read_record, write_record
from bulkembed.dataset.parquet_file import parquet_bytes
from bulkembed.dataset.reject_reasons import reject_reasons
from bulkembed.dataset.snapshot_changes import find_changes
from bulkembed.dataset.snapshots import Snapshot, newest_dataset, stored_snapshot
from bulkembed.dataset.vector_columns import forms_of
from bulkembed.errors import BulkembedError, ConfigError, SourceError, StorageError
from bulkembed.storage.listing import WILD
from bulkembed.storage.store import Store
from bulkembed.storage.uris import absolute, canonical, join
from bulkembed.vectors.quantize import int8_ranges_from_text

PART_BYTES = 64 << 20  # in memory; a file is smaller, or has the rows of one data file
FEED_NAME = "_feed.json"
KINDS = ("upserts", "deletes")
FILE_NAME = re.compile(r"(?:upserts|deletes)/part-\d{5,}\.parquet")
FeedVectors = Literal["stored", "float32"]
FeedKey = Literal["none", "uuid"]


@dataclass(frozen=True)
class FeedFile:
    name: str  # below the feed
    rows: int
    bytes: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Feed:
    """What a feed holds."""

    output: str  # of the dataset, absolute
    from_snapshot: int  # 0: nothing, so that every row is an upsert
    to_snapshot: int
    line: str
    vectors: FeedVectors
    key: FeedKey
    rows: int = 0  # of the newer snapshot: what the reader has afterwards
    upserts: int = 0
    vectors_changed: int = 0  # upserts with a vector that the reader does not have under their key
    keys_added: int = 0  # keys that the older snapshot does not have
    deletes: int = 0
    reasons: dict[str, int] = field(default_factory=dict)  # deletes by reason
    files: tuple[FeedFile, ...] = ()

    def answers(self, asked: Feed) -> bool:
        """Whether this is the feed that was asked for."""
        names = ("output", "from_snapshot", "to_snapshot", "line", "vectors", "key")
        return all(getattr(self, name) == getattr(asked, name) for name in names)

    def to_dict(self) -> dict[str, Any]:
        """The record: `from` and `to` are no names in Python."""
        values = asdict(self)
        return {"from": values.pop("from_snapshot"), "to": values.pop("to_snapshot")} | values

    @classmethod
    def from_dict(cls, record: dict[str, Any]) -> Feed:
        values = {name: value for name, value in record.items() if name not in ("from", "to", "files")}
        return cls(
            from_snapshot=record["from"], to_snapshot=record["to"], files=tuple(FeedFile(**file) for file in record["files"]), **values
        )


def write_feed(
    store: Store, output: str, folder: str, from_snapshot: int, to_snapshot: int | None, vectors: FeedVectors, key: FeedKey
) -> Feed:
    """Writes what leads from one snapshot to another, by default the current one, to `folder`. A feed that is there already stays.

    Raises SourceError where a snapshot is gone or both are of different lines, ConfigError where `folder` holds anything else."""
    for name, value, choices in (("vectors", vectors, FeedVectors), ("key", key, FeedKey)):
        if value not in get_args(choices):
            raise ConfigError(f"{name}: must be {' or '.join(get_args(choices))} (got {value!r})")
    require_outside(output, folder)
    new = newest_dataset(store, output, to_snapshot)[1]
    old = stored_snapshot(store, output, from_snapshot) if from_snapshot else None
    require_one_line(old, new)
    require_outside_sources(new, folder)
    asked = Feed(output=absolute(output), from_snapshot=from_snapshot, to_snapshot=new.number, line=new.line, vectors=vectors, key=key)
    standing = read_feed(store, folder)
    if standing is not None and not standing.answers(asked):
        raise ConfigError(
            f"feed: {folder} holds the changes from snapshot {standing.from_snapshot} to {standing.to_snapshot} of {standing.output} "
            f"(vectors {standing.vectors}, key {standing.key}); choose another folder"
        )
    names = written_names(store, folder)
    if standing is not None and {file.name for file in standing.files} == set(names):
        return standing
    for name in [FEED_NAME, *names]:
        store.delete(join(folder, name))
    return write_files(store, folder, asked, old, new)


def require_outside(output: str, folder: str) -> None:
    """Raises ConfigError where a feed would lie among the dataset's own files."""
    place = canonical(folder)
    for written in paths.written_folders(output):
        if f"{place}/".startswith(f"{canonical(written)}/"):
            raise ConfigError(f"feed: {folder} lies in {written}, which holds the dataset; choose another folder")


def require_outside_sources(snapshot: Snapshot, folder: str) -> None:
    """Raises ConfigError where the next run would read a feed as documents."""
    for source in snapshot.sources:
        if not WILD.search(source) and f"{canonical(folder)}/".startswith(f"{canonical(source).rstrip('/')}/"):
            raise ConfigError(f"feed: {folder} lies in {source}, which the dataset is made of; choose another folder")


def require_one_line(old: Snapshot | None, new: Snapshot) -> None:
    trial = next((snapshot for snapshot in (old, new) if snapshot is not None and snapshot.limited), None)
    if old is not None and trial is not None:
        raise SourceError(
            f"changes: snapshot {trial.number} is a trial (--limit {trial.limit}), and a feed leads between whole snapshots; "
            f"load snapshot {new.number} anew (--from 0)"
        )
    if old is not None and old.line != new.line:
        raise SourceError(
            f"changes: snapshots {old.number} and {new.number} are of different lines ({old.line} and {new.line}), so that no row of one "
            f"replaces a row of the other; load snapshot {new.number} anew (--from 0) beside the old copy, then switch"
        )


def read_feed(store: Store, folder: str) -> Feed | None:
    """The finished feed in a folder. None where there is none, or where it was not finished."""
    try:
        return read_record(store, join(folder, FEED_NAME), Feed.from_dict)
    except FileNotFoundError:
        return None


def written_names(store: Store, folder: str) -> list[str]:
    """The files of a feed, finished or not. Raises ConfigError where there are others among them."""
    names = [f"{kind}/{name}" for kind in KINDS for name in store.names(join(folder, kind))]
    others = [name for name in names if not FILE_NAME.fullmatch(name)]
    if others:
        raise ConfigError(f"feed: {folder} holds {others[0]}, which is no file of a feed; choose another folder")
    return names


def write_files(store: Store, folder: str, asked: Feed, old: Snapshot | None, new: Snapshot) -> Feed:
    found = find_changes(store, asked.output, old, new)
    steps = steps_of(asked, new)
    upserts = upsert_tables(store, found.files, found.upserts, steps)
    files = list(write_parts(store, folder, "upserts", upserts, new.provenance))
    reasons: Counter[str] = Counter()
    if old is not None and len(found.deletes):
        deletes = delete_tables(store, found.files, found.deletes, steps[-1:], reject_reasons(store, asked.output, old, new))
        files += write_parts(store, folder, "deletes", counted(deletes, reasons), new.provenance)
    feed = replace(
        asked,
        rows=new.rows,
        upserts=len(found.upserts),
        vectors_changed=int(found.upserts["vector_changed"].sum()),
        keys_added=found.added,
        deletes=len(found.deletes),
        reasons=dict(sorted(reasons.items())),
        files=tuple(files),
    )
    if sum(file.rows for file in files) != feed.upserts + feed.deletes:
        raise BulkembedError(f"feed: {folder}: its files have not the rows that changed; it is not finished; run again")
    write_record(store, join(folder, FEED_NAME), feed.to_dict())
    return feed


def steps_of(asked: Feed, new: Snapshot) -> list[Step]:
    """What becomes of the rows. The last step is that of their keys, which deletes take too."""
    vectors = float32_lists(forms_of(new.provenance), int8_ranges_from_text(new.provenance)) if asked.vectors == "float32" else unchanged
    return [vectors, uuid_keys if asked.key == "uuid" else unchanged]


def unchanged(rows: pa.Table) -> pa.Table:
    return rows


def counted(tables: Iterable[pa.Table], reasons: Counter[str]) -> Iterator[pa.Table]:
    for table in tables:
        reasons.update(table["reason"].to_pylist())
        yield table


def write_parts(store: Store, folder: str, kind: str, tables: Iterable[pa.Table], provenance: dict[str, str]) -> Iterator[FeedFile]:
    """Writes the tables in files of about PART_BYTES."""
    for number, table in enumerate(joined(tables)):
        name, data = f"{kind}/part-{number:05d}.parquet", parquet_bytes(table, provenance)
        store.put(join(folder, name), data)
        yield FeedFile(name, table.num_rows, len(data), sha256(data).hexdigest())


def joined(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The tables, with small ones together. Raises StorageError where one has other columns than those before it."""
    pending: list[pa.Table] = []
    for table in tables:
        pending.append(table)
        if table.schema != pending[0].schema:
            raise StorageError(f"feed: data files of one line have different columns: {table.schema.names} and {pending[0].schema.names}")
        if sum(part.nbytes for part in pending) >= PART_BYTES:
            yield pa.concat_tables(pending)
            pending = []
    if pending:
        yield pa.concat_tables(pending)
