"""Two snapshots of a line -> the rows that lead from one to the other, as places in their data files.

Files that both snapshots list hold the same rows. Of the others the small columns are read: never a vector. A key that changed may have
more rows in files of both, where ids repeat. Its group must be sent whole, so that the ids of these files are read too.

Memory is bounded: at most MAX_BUCKET_ROWS keys are compared at a time (0.3 GB), and some 60 bytes are needed for each row that changed.
The keys of all rows in files of one snapshot alone lie on the local disk meanwhile, 56 bytes each. One key with more rows than fit a
bucket breaks the bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from hashlib import blake2b
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.changes import ROW_KEY, RowKeys, changed_rows, changes_of, starting_with
from bulkembed.dataset.data_rows import read_columns, read_columns_but
from bulkembed.dataset.read_ahead import read_ahead
from bulkembed.dataset.row_buckets import RowBuckets
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.dataset.vector_columns import forms_of
from bulkembed.errors import BulkembedError
from bulkembed.row_keys import Hashes, hashes_of_column, id_hashes, row_hashes
from bulkembed.storage.store import Store

MAX_BUCKET_ROWS = 2_000_000
MAX_FILES_AHEAD = 8  # threads that wait for the store
DERIVED = ("n_tokens", "truncated")  # they follow from the content
KEY_COLUMNS = ("id", "chunk_index")
PLACE = np.dtype([("file", np.int32), ("row", np.int32)])
UPSERT = np.dtype([*PLACE.descr, ("vector_changed", np.bool_), ("rows_of_id", np.int32)])


@dataclass(frozen=True)
class Files:
    """The data files of two snapshots: those that the first, the second, and both have. Their URIs are listed once."""

    uris: list[str]
    fingerprints: list[str]  # of each file
    old: list[int]  # indices
    new: list[int]
    both: list[int]


@dataclass(frozen=True, eq=False)
class FoundChanges:
    """The changes from one snapshot to another. Places are in `files`, ascending."""

    files: list[str]  # URIs
    upserts: npt.NDArray[np.void]  # of UPSERT: rows of the second snapshot
    deletes: npt.NDArray[np.void]  # of PLACE: a row of the first snapshot for each key that is gone
    added: int  # keys that the first snapshot does not have
    replaced: int  # rows of the first snapshot that the upserts and deletes are for


def find_changes(store: Store, output: str, old: Snapshot | None, new: Snapshot) -> FoundChanges:
    """What leads from `old` to `new`, snapshots of one line. Without `old` every row is new."""
    files, rows = files_of(store, output, old, new)
    unread = {*forms_of(new.provenance), *DERIVED}
    count = rows // MAX_BUCKET_ROWS + 1
    with TemporaryDirectory(prefix="bulkembed-changes-") as folder:
        sides = [RowBuckets(Path(folder, side), count) for side in ("old", "new")]
        for side, numbers in zip(sides, (files.old, files.new), strict=True):
            for keys in read_ahead(partial(read_keys, store, files, unread), numbers, MAX_FILES_AHEAD):
                side.add(keys)
        changed = [RowBuckets(Path(folder, f"changed-{side}"), count) for side in ("old", "new")]
        words = keep_changed(sides, changed)
        for keys in rows_of_both(store, files, words):
            for side in changed:
                side.add(keys)
        found = join_buckets(files.uris, changed)
    before = old.rows if old else 0
    if before - found.replaced + len(found.upserts) != new.rows:
        raise BulkembedError(
            f"changes: {before:,} rows less {found.replaced:,} and {len(found.upserts):,} more are not the {new.rows:,} rows of snapshot "
            f"{new.number}; no feed is written, since rows were lost or doubled"
        )
    return found


def files_of(store: Store, output: str, old: Snapshot | None, new: Snapshot) -> tuple[Files, int]:
    """The files of both snapshots, and the number of rows in those that only one of them has."""
    before = rows_by_file(store, output, old) if old else {}
    after = rows_by_file(store, output, new)
    places = sorted(before.keys() | after.keys())
    numbers = {place: number for number, place in enumerate(places)}
    files = Files(
        uris=[paths.data_uri(output, fingerprint, name) for fingerprint, name in places],
        fingerprints=[fingerprint for fingerprint, _ in places],
        old=[numbers[place] for place in sorted(before.keys() - after.keys())],
        new=[numbers[place] for place in sorted(after.keys() - before.keys())],
        both=[numbers[place] for place in sorted(before.keys() & after.keys())],
    )
    return files, sum((before | after)[place] for place in before.keys() ^ after.keys())


def rows_by_file(store: Store, output: str, snapshot: Snapshot) -> dict[tuple[str, str], int]:
    """The number of rows by (fingerprint, name). int8 ranges are part of a fingerprint, and may change within a line."""
    tables = manifests.tables(store, output, snapshot.manifest, manifests.DataFile, ["name", "rows"])
    return {
        (snapshot.fingerprint, name): rows
        for table in tables
        for name, rows in zip(table["name"].to_pylist(), table["rows"].to_pylist(), strict=True)
    }


def read_keys(store: Store, files: Files, unread: set[str], number: int) -> RowKeys:
    """The keys of all rows of a data file, from its small columns."""
    table = read_columns_but(store, files.uris[number], unread)
    keys = np.zeros(table.num_rows, ROW_KEY)
    keys["key"] = key_hashes(table)
    # Under another fingerprint the same content has another vector: int8 levels of other ranges.
    made_with = np.frombuffer(blake2b(files.fingerprints[number].encode(), digest_size=16).digest(), np.uint64)
    keys["vector"] = hashes_of_column(table["content_hash"]) ^ made_with
    rest = [name for name in table.column_names if name not in (*KEY_COLUMNS, "content_hash")]
    keys["rest"] = row_hashes(table.select(rest)) if rest else 0
    keys["file"], keys["row"] = number, np.arange(len(keys))
    return keys


def key_hashes(table: pa.Table) -> Hashes:
    """Of the id alone, or of the id and the chunk's index in a dataset of chunks."""
    return row_hashes(table.select(list(KEY_COLUMNS))) if "chunk_index" in table.column_names else id_hashes(table["id"])


def keep_changed(sides: list[RowBuckets], changed: list[RowBuckets]) -> npt.NDArray[np.uint64]:
    """Copies the rows of keys that changed. Returns the first word of each of these keys, ascending."""
    words = []
    for bucket in range(sides[0].count):
        parts = changed_rows(*(side.read(bucket) for side in sides))
        for side, part in zip(changed, parts, strict=True):
            side.add(part)
        words.append(np.unique(np.concatenate([part["key"][:, 0] for part in parts])))
    return np.sort(np.concatenate(words))


def rows_of_both(store: Store, files: Files, words: npt.NDArray[np.uint64]) -> Iterator[RowKeys]:
    """Rows in files of both snapshots, with keys that start with these words.

    They are the same on either side. Their vectors and other columns therefore decide nothing, and are left out."""

    def read(number: int) -> RowKeys:
        table = read_columns(store, files.uris[number], KEY_COLUMNS)
        hashes = key_hashes(table)
        rows = starting_with(words, hashes)
        keys = np.zeros(len(rows), ROW_KEY)
        keys["key"], keys["file"], keys["row"] = hashes[rows], number, rows
        return keys

    if len(words):
        yield from read_ahead(read, files.both, MAX_FILES_AHEAD)


def join_buckets(uris: list[str], changed: list[RowBuckets]) -> FoundChanges:
    """The changes of all buckets, in the order of the files."""
    upserts, deletes = [np.empty(0, UPSERT)], [np.empty(0, PLACE)]
    added = replaced = 0
    for bucket in range(changed[0].count):
        old, new = (side.read(bucket) for side in changed)
        changes = changes_of(old, new)
        part = np.zeros(len(changes.upserts), UPSERT)
        for name in PLACE.names or ():
            part[name] = new[name][changes.upserts]
        part["vector_changed"], part["rows_of_id"] = changes.vector_changed, changes.rows_of_key
        upserts.append(part)
        deletes.append(old[["file", "row"]][changes.deletes].astype(PLACE))
        added, replaced = added + changes.added, replaced + changes.replaced
    return FoundChanges(uris, in_place_order(upserts), in_place_order(deletes), added, replaced)


def in_place_order(parts: Iterable[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    places = np.concatenate(list(parts))
    order = np.lexsort([places["row"], places["file"]])
    return np.asarray(places[order])
