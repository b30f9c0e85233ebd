"""A shard -> its documents and rejects. Rows that cannot be embedded become rejects, each with a reason:

null_text      every text column is null or absent
empty_text     nothing but white space
not_text       a text column holds a number, a list, ...
undecodable    bytes that are not UTF-8
not_json       a JSONL line that is no JSON object
line_too_long  a JSONL line of more than MAX_LINE_BYTES
null_id        the id is null or absent
wrong_type     an id or kept column that does not fit the type of the run
too_long       more tokens than the limit, where the run rejects long documents (see stages)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bulkembed.config.recipe import Recipe
from bulkembed.errors import ObjectError
from bulkembed.records import Documents, Shard
from bulkembed.source.columns import require_names
from bulkembed.source.documents import split_rows
from bulkembed.source.row_columns import RowColumns, jsonl_columns, parquet_columns
from bulkembed.source.text_lines import read_lines, seek_first_line
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store, changed_error

READ_ROWS = 16_384


def read_documents(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> Documents:
    """The documents of a shard. `carried` is the schema of the id and the kept columns in the output.

    Raises ObjectError where the object is corrupt, lacks a column, or changed since it was planned."""
    read_rows = {"parquet": parquet_rows, "jsonl": jsonl_rows}[shard.format]
    try:
        columns = store.retrying(lambda: read_rows(store, shard, recipe, carried), f"reading {shard.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{shard.uri}: rows {shard.start}-{shard.stop} are unreadable: {describe_error(error)}") from error
    require_unchanged(store, shard.uri, shard.version)
    if columns.rows.num_rows != shard.rows:
        raise ObjectError(f"{shard.uri}: {columns.rows.num_rows} rows where {shard.rows} were planned; run again to plan it anew")
    found = split_rows(columns, recipe, carried)
    return replace(found, numbers=shard.start + found.numbers, rejects=shift_rows(found.rejects, shard.start))


def shift_rows(rejects: pa.Table, rows: int) -> pa.Table:
    """The rejects with `rows` added to their row numbers."""
    place = rejects.column_names.index("row")
    return rejects.set_column(place, rejects.schema.field(place), pc.add(rejects["row"], rows))


def require_unchanged(store: Store, uri: str, version: str) -> None:
    """Raises ObjectError where the object has changed since it was opened. What was read may then be a mixture."""
    try:
        current = store.version(uri)
    except FileNotFoundError:
        current = "gone"
    if current != version:
        raise changed_error(uri)


def parquet_rows(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    """The columns of a shard of a Parquet file."""
    metadata = footer(store, shard.uri, shard.version)
    names = recipe.source_columns
    with store.open(shard.uri, shard.version) as file:
        parquet = pq.ParquetFile(file, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
        require_names(parquet.schema_arrow.names, names, shard.uri)
        table = rows_of(parquet, shard, names)
        int96 = int96_columns(parquet, recipe.row_schema.carried_columns)
        coarse = pq.ParquetFile(file, metadata=metadata, coerce_int96_timestamp_unit="us", page_checksum_verification=True)
        microseconds = rows_of(coarse, shard, int96) if int96 else pa.table({})
    return parquet_columns(table, microseconds, recipe, carried, shard.uri, shard.start)


def rows_of(parquet: pq.ParquetFile, shard: Shard, names: Sequence[str]) -> pa.Table:
    """These columns of the shard's rows."""
    groups: list[int] = []
    first_row, at = shard.start, 0
    for number in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(number).num_rows
        if at < shard.stop and at + rows > shard.start:
            first_row = min(first_row, at) if groups else at
            groups.append(number)
        at += rows
    batches, row = [], first_row
    for batch in parquet.iter_batches(READ_ROWS, row_groups=groups, columns=list(names)):
        start, stop = max(row, shard.start), min(row + batch.num_rows, shard.stop)
        if start < stop:
            batches.append(batch.slice(start - row, stop - start))
        row += batch.num_rows
        if row >= shard.stop:
            break
    return pa.Table.from_batches(batches, pa.schema([parquet.schema_arrow.field(name) for name in names]))


def int96_columns(parquet: pq.ParquetFile, names: Iterable[str]) -> list[str]:
    """Columns with INT96 timestamps, as Spark writes them. Arrow reads them as nanoseconds, and wrongly before 1677 and after 2262."""
    kinds = {name: parquet.schema_arrow.field(name).type for name in names}
    maybe = [name for name, kind in kinds.items() if pa.types.is_timestamp(kind) or pa.types.is_nested(kind)]
    leaves = (parquet.schema.column(number) for number in range(len(parquet.schema) if maybe else 0))
    paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    return [name for name in maybe if any(path == name or path.startswith(f"{name}.") for path in paths)]


@lru_cache(maxsize=4)
def footer(store: Store, uri: str, version: str) -> pq.FileMetaData:
    """The footer of one version of an object. It is read once a process, since most shards have a neighbour in the same object."""
    with store.open(uri, version) as file:
        return pq.read_metadata(file)


def jsonl_rows(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    """The columns of a range of lines that are not blank."""
    expected_bytes = shard.text_bytes * (shard.skip + shard.rows) // shard.rows
    with store.open_lines(shard.uri, shard.version, expected_bytes) as file:
        file.seek(shard.offset or seek_first_line(file))
        not_blank = ((line, length) for line, length in read_lines(file) if not line.isspace())
        return jsonl_columns(islice(not_blank, shard.skip, shard.skip + shard.rows), recipe, carried)
