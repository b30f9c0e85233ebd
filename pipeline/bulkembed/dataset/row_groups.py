"""A data file -> its schema and its row groups, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.errors import StorageError
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store

T = TypeVar("T")
WHOLE_BYTES = 64 << 20  # smaller files, which are a few row groups, are read by one GET


@dataclass(frozen=True)
class StoredFile:
    """A data file that is open for reading."""

    uri: str
    store: Store
    opened: Callable[[], Any]  # a new readable file of its bytes
    metadata: pq.FileMetaData

    @property
    def arrow(self) -> pa.Schema:
        """Its schema, with the footer as metadata."""
        return self.metadata.schema.to_arrow_schema()

    def groups(self) -> Iterator[pa.Table]:
        """The rows of each row group. Raises StorageError where one cannot be read."""
        for number in range(self.metadata.num_row_groups):
            yield reading(self.store, self.uri, self.opened, partial(read_group, metadata=self.metadata, number=number))


def open_data_file(store: Store, uri: str) -> StoredFile:
    """Raises StorageError where the file is missing or damaged."""
    try:
        start = store.read_start(uri, WHOLE_BYTES)
    except FileNotFoundError:
        raise StorageError(f"{uri}: is missing; run again, which plans without it") from None
    opened = partial(pa.BufferReader, start) if len(start) < WHOLE_BYTES else partial(store.open, uri)
    return StoredFile(uri, store, opened, reading(store, uri, opened, pq.read_metadata))


def read_group(file: Any, metadata: pq.FileMetaData, number: int) -> pa.Table:
    return pq.ParquetFile(file, metadata=metadata, page_checksum_verification=True).read_row_group(number, use_threads=False)


def reading(store: Store, uri: str, opened: Callable[[], Any], work: Callable[[Any], T]) -> T:
    """The result of `work` on the opened file, repeated after a transient fault of the store."""

    def attempt() -> T:
        with opened() as file:
            return work(file)

    try:
        return store.retrying(attempt, f"reading {uri}")
    except CORRUPT as error:
        raise StorageError(f"{uri}: is unreadable: {describe_error(error)}; remove it and run again, which makes its rows anew") from error
