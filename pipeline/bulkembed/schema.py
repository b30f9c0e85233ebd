"""The Arrow schema of the output, and how Parquet bytes become a table again."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

REJECTS = (  # after the id
    pa.field("row", pa.int64(), nullable=False),  # of the source object
    pa.field("reason", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
)
CHUNKS = (  # only in runs that cut long documents into chunks
    pa.field("chunk_index", pa.int32(), nullable=False),
    pa.field("char_start", pa.int64(), nullable=False),  # characters of the composed text
    pa.field("char_end", pa.int64(), nullable=False),
)
TAIL = (  # the last columns of a data file
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("content_hash", pa.binary(16), nullable=False),  # of the composed text
)


def table_of(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of a Parquet file's bytes, decoded on this thread.

    `pq.read_table` is never used. It leaves references to Python objects with Arrow's own threads. A thread that drops the last
    reference while the interpreter ends crashes the process (4 in 100 on a busy host), so that a finished command would fail."""
    return pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)


def rejects_schema(id_type: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field("id", id_type), *REJECTS])


def empty_table(arrow: pa.Schema) -> pa.Table:
    """A table of this schema without rows. `Schema.empty_table` cannot make lists of UUIDs."""
    return pa.Table.from_batches([], arrow)


def display_value(column: pa.ChunkedArray, row: int) -> Any:
    """A value for people to read: the Python value, or Arrow's text for a time that Python's types cannot hold."""
    try:
        return column[row].as_py()
    except (ValueError, OverflowError):
        return " ".join(column.slice(row, 1).combine_chunks().to_string().split())[2:-2]
