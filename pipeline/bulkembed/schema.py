"""The Arrow schema of the output, and how Parquet bytes become a table again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.records import RejectReason

REJECTS = (  # after the id
    pa.field("source", pa.string(), nullable=False),  # URI of the source object
    pa.field("row", pa.int64(), nullable=False),  # of the source object
    pa.field("reason", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
    pa.field("content_hash", pa.binary(16)),  # of the composed text; null where the row has none
)
CHUNKS = (  # only in runs that cut long documents into chunks
    pa.field("chunk_index", pa.int32(), nullable=False),
    pa.field("char_start", pa.int64(), nullable=False),  # characters of the composed text
    pa.field("char_end", pa.int64(), nullable=False),
    pa.field("document_hash", pa.binary(16), nullable=False),  # of the composed text
)
TAIL = (  # the last columns of a data file
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("content_hash", pa.binary(16), nullable=False),  # of the composed text; of a chunk, of its own text
)


def table_of(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of a Parquet file's bytes, decoded on this thread.

    `pq.read_table` is never used. It leaves references to Python objects with Arrow's own threads. A thread that drops the last
    reference while the interpreter ends crashes the process (4 in 100 on a busy host), so that a finished command would fail."""
    return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True).read(columns, use_threads=False)


def rejects_schema(id_type: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field("id", id_type), *REJECTS])


def rejects_table(
    ids: pa.ChunkedArray,
    origins: Sequence[tuple[str, int]],
    reasons: Sequence[tuple[RejectReason, str]],
    hashes: Sequence[bytes | None],
) -> pa.Table:
    """A table of n rejects. `origins`: (URI, row of that object); `reasons`: (reason, detail); `hashes`: of the composed texts."""
    columns = (
        [uri for uri, _ in origins],
        [row for _, row in origins],
        [reason for reason, _ in reasons],
        [detail for _, detail in reasons],
        hashes,
    )
    arrays = [pa.array(values, field.type) for field, values in zip(REJECTS, columns, strict=True)]
    return pa.Table.from_arrays([ids, *arrays], schema=rejects_schema(ids.type))


def empty_table(arrow: pa.Schema) -> pa.Table:
    """A table of this schema without rows. `Schema.empty_table` cannot make lists of UUIDs."""
    return pa.Table.from_batches([], arrow)


def display_value(column: pa.ChunkedArray, row: int) -> Any:
    """A value for people to read: the Python value, or Arrow's text for a time that Python's types cannot hold."""
    try:
        return column[row].as_py()
    except (ValueError, OverflowError):
        return " ".join(column.slice(row, 1).combine_chunks().to_string().split())[2:-2]
