"""The key files of a snapshot, and rejects, read again."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset import key_files, paths
from bulkembed.dataset.manifests import SourceVersion, read_sources
from bulkembed.dataset.repair import Problem
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import StorageError
from bulkembed.scans import reasons_of
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store


class Damaged(Exception):
    """What is wrong with a file, in one line."""


def key_problems(store: Store, output: str, snapshot: Snapshot) -> Iterator[Problem]:
    """A trial has no key files."""
    if snapshot.limited:
        return
    with_rejects = rejects_that_stand(store, paths.rejects_folder(output, snapshot.line))
    for version in read_sources(store, output, snapshot.manifest):
        keys, rejects = (make(output, snapshot.line, version.object_id) for make in (paths.keys_uri, paths.rejects_uri))
        try:
            check_scan(store, keys, rejects, version)
        except StorageError as error:
            yield Problem(str(error))
        except Damaged as damaged:
            yield Problem(str(damaged), (keys, rejects))
        if not version.rejects and version.object_id in with_rejects:
            yield stale(rejects)


def rejects_that_stand(store: Store, folder: str) -> set[str]:
    """Names of the files with rejects in a folder."""
    return {name.removesuffix(".parquet") for name in store.names(folder)}


def stale(uri: str) -> Problem:
    return Problem(f"{uri}: rejects of an attempt that came to nothing: its file has none", (uri,))


def check_scan(store: Store, keys_uri: str, rejects_uri: str, version: SourceVersion) -> None:
    """Raises Damaged unless each row of the object is a key or a reject, as many as the snapshot says."""
    try:
        parquet = pq.ParquetFile(pa.BufferReader(store.read(keys_uri)), page_checksum_verification=True)
        counts, keys = key_files.footer_in(parquet).counts, key_files.keys_in(parquet)
    except FileNotFoundError:
        raise Damaged(f"{keys_uri}: missing") from None
    except (*CORRUPT, KeyError, TypeError, ValueError) as error:
        raise Damaged(f"{keys_uri}: unreadable: {describe_error(error)}") from error
    if (counts.rows, counts.rejects) != (version.rows, version.rejects):
        said = f"has {counts.rows} rows and {counts.rejects} rejects"
        raise Damaged(f"{keys_uri}: {said}, the snapshot says {version.rows} and {version.rejects}")
    if not version.rejects:
        return
    rejects = read_rejects(store, rejects_uri, version.rejects, "its key file")
    if reasons_of(rejects) != counts.reasons or len(np.union1d(keys.rows, rejects["row"].to_numpy())) != len(keys) + rejects.num_rows:
        raise Damaged(f"{rejects_uri}: its rows or reasons are not those that its key file leaves out")


def read_rejects(store: Store, uri: str, count: int, whose: str) -> pa.Table:
    """Raises Damaged unless it holds so many rejects."""
    try:
        table = schema.table_of(store.read(uri))
    except FileNotFoundError:
        raise Damaged(f"{uri}: missing") from None
    except CORRUPT as error:
        raise Damaged(f"{uri}: unreadable: {describe_error(error)}") from error
    if table.column_names != ["id", *(field.name for field in schema.REJECTS)]:
        raise Damaged(f"{uri}: its columns are {', '.join(table.column_names)}, not those of rejects of this version")
    if table.num_rows != count:
        raise Damaged(f"{uri}: {table.num_rows} rows, {whose} says {count}")
    return table


def rows_of(store: Store, uri: str) -> int:
    """The rows of a Parquet file; 0 where there is none that can be read."""
    try:
        rows: int = pq.ParquetFile(pa.BufferReader(store.read(uri))).metadata.num_rows
    except CORRUPT:
        return 0
    return rows
