"""Parts of data files: some columns of all rows, or whole rows."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.errors import StorageError
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store

Result = TypeVar("Result")


def read_columns(store: Store, uri: str, wanted: Collection[str]) -> pa.Table:
    """All rows of those columns among `wanted` that the file has. Raises StorageError where the file is missing or damaged."""

    def read(parquet: pq.ParquetFile) -> pa.Table:
        return parquet.read([name for name in parquet.schema_arrow.names if name in wanted], use_threads=False)  # see schema.table_of

    return read_parquet(store, uri, read)


def read_columns_but(store: Store, uri: str, unwanted: Collection[str]) -> pa.Table:
    """As `read_columns`, of all other columns than these."""

    def read(parquet: pq.ParquetFile) -> pa.Table:
        return parquet.read([name for name in parquet.schema_arrow.names if name not in unwanted], use_threads=False)

    return read_parquet(store, uri, read)


def read_rows(store: Store, uri: str, rows: npt.NDArray[np.int64], columns: list[str] | None = None) -> pa.Table:
    """These rows in their order, ascending, of these columns or of all. Reads the row groups that have any of them.

    Raises StorageError where the file is missing or damaged."""

    def read(parquet: pq.ParquetFile) -> pa.Table:
        groups = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        starts = np.concatenate([[0], np.cumsum(groups)])
        parts = []
        for number in np.unique(np.searchsorted(starts, rows, side="right") - 1):
            inside = rows[(rows >= starts[number]) & (rows < starts[number + 1])] - starts[number]
            parts.append(parquet.read_row_group(int(number), columns, use_threads=False).take(pa.array(inside)))
        return pa.concat_tables(parts)

    return read_parquet(store, uri, read)


def read_parquet(store: Store, uri: str, read: Callable[[pq.ParquetFile], Result]) -> Result:
    def attempt() -> Result:
        with store.open(uri) as file:
            return read(pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True))

    try:
        return store.retrying(attempt, f"reading {uri}")
    except FileNotFoundError:
        raise StorageError(f"{uri}: missing; if its snapshot has expired meanwhile, ask for a newer one") from None
    except CORRUPT as error:
        raise StorageError(f"{uri}: is damaged: {describe_error(error)}") from error
