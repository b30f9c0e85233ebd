"""The key files of a snapshot, and the rejects beside them, read again."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.dataset import key_files, paths
from bulkembed.dataset.manifests import SourceVersion, read_sources
from bulkembed.dataset.repair import Problem
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import StorageError
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store


def key_problems(store: Store, output: str, snapshot: Snapshot) -> Iterator[Problem]:
    """A trial has no key files."""
    if snapshot.limited:
        return
    for version in read_sources(store, output, snapshot.manifest):
        keys, rejects = (make(output, snapshot.line, version.object_id) for make in (paths.keys_uri, paths.rejects_uri))
        try:
            wrong = what_is_wrong(store, keys, rejects, version)
        except StorageError as error:
            yield Problem(str(error))
            continue
        if wrong is not None:
            yield Problem(wrong, (keys, rejects))


def what_is_wrong(store: Store, keys_uri: str, rejects_uri: str, version: SourceVersion) -> str | None:
    try:
        data = store.read(keys_uri)
    except FileNotFoundError:
        return f"{keys_uri}: missing"
    try:
        parquet = pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
        counts = key_files.footer_in(parquet).counts
        key_files.keys_in(parquet)
    except (*CORRUPT, KeyError, TypeError, ValueError) as error:
        return f"{keys_uri}: unreadable: {describe_error(error)}"
    said = counts.rows, counts.rejects
    if said != (version.rows, version.rejects):
        return f"{keys_uri}: has {said[0]} rows and {said[1]} rejects, the snapshot says {version.rows} and {version.rejects}"
    return reject_problem(store, rejects_uri, version.rejects, "its key file") if version.rejects else None


def reject_problem(store: Store, uri: str, rejects: int, whose: str) -> str | None:
    """What is wrong with a file that must hold so many rejects."""
    try:
        rows = pq.ParquetFile(pa.BufferReader(store.read(uri))).metadata.num_rows
    except FileNotFoundError:
        return f"{uri}: missing"
    except CORRUPT as error:
        return f"{uri}: unreadable: {describe_error(error)}"
    return None if rows == rejects else f"{uri}: {rows} rows, {whose} says {rejects}"


def rows_of(store: Store, uri: str) -> int:
    """The rows of a Parquet file; 0 where there is none that can be read."""
    try:
        rows: int = pq.ParquetFile(pa.BufferReader(store.read(uri))).metadata.num_rows
    except CORRUPT:
        return 0
    return rows
