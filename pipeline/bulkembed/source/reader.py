"""A shard -> its documents and rejects; parts -> the id and the kept columns of their rows.

Rows that cannot be embedded become rejects, each with a reason:

null_text      every text column is null or absent
empty_text     nothing but white space, or nothing that has a token (see stages)
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
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import lru_cache
from itertools import islice

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.config.recipe import Recipe
from bulkembed.errors import ObjectError
from bulkembed.records import Documents
from bulkembed.shards import Part, Shard
from bulkembed.source.columns import require_names
from bulkembed.source.documents import join_documents, rejected_rows, split_rows
from bulkembed.source.row_columns import RowColumns, jsonl_columns, nullable_schema, parquet_columns
from bulkembed.source.text_lines import read_lines, seek_first_line
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store, changed_error

READ_ROWS = 16_384
PART_THREADS = 8  # objects of a shard that are read side by side: the threads wait for the store most of the time
Numbers = npt.NDArray[np.int64]


def read_documents(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> Documents:
    """The documents of a shard. `carried` is the schema of the id and the kept columns in the output.

    Raises ObjectError where one of its objects is corrupt, lacks a column, or changed since it was planned."""
    row_bytes = shard.text_bytes / max(1, shard.rows)

    def documents_of(part: Part) -> Documents:
        columns = read_part(store, part, recipe, carried, row_bytes)
        return split_rows(columns, recipe, carried, part.uri, part.object_rows)

    with ThreadPoolExecutor(PART_THREADS) as pool:
        return join_documents(list(pool.map(documents_of, shard.parts)), shard.starts)


def read_carried(store: Store, parts: Sequence[Part], recipe: Recipe, carried: pa.Schema) -> pa.Table:
    """Id and kept columns of documents, in the order of the parts. It reads no text column of a Parquet object.

    Raises what `read_documents` does, and ObjectError where a row has no id or a value that does not fit."""
    without_texts = replace(recipe, vector_key=replace(recipe.vector_key, text_columns=()))

    def rows_of_part(part: Part) -> pa.Table:
        columns = read_part(store, part, without_texts, carried, 0)
        rejected = rejected_rows(columns)
        if rejected:
            row, reason = min(rejected.items())
            detail = ": ".join(filter(None, reason))
            raise ObjectError(f"{part.uri}: row {part.object_rows[row]} was planned as a document, but is none: {detail}; run again")
        return columns.rows

    with ThreadPoolExecutor(PART_THREADS) as pool:
        tables = list(pool.map(rows_of_part, parts))
    return pa.concat_tables([schema.empty_table(nullable_schema(carried)), *tables]).cast(carried)


def read_part(store: Store, part: Part, recipe: Recipe, carried: pa.Schema, row_bytes: float) -> RowColumns:
    """The columns of a part. `row_bytes`: the estimated size of the text of a row; 0 where it is unknown."""

    def attempt() -> RowColumns:
        return jsonl_rows(store, part, recipe, carried, row_bytes) if part.format == "jsonl" else parquet_rows(store, part, recipe, carried)

    try:
        columns = store.retrying(attempt, f"reading {part.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{part.uri}: rows {part.start}-{part.stop} are unreadable: {describe_error(error)}") from error
    require_unchanged(store, part.uri, part.version)
    if columns.rows.num_rows != part.rows:
        raise ObjectError(f"{part.uri}: {columns.rows.num_rows} rows where {part.rows} were planned; run again to plan it anew")
    return columns


def require_unchanged(store: Store, uri: str, version: str) -> None:
    """Raises ObjectError where the object has changed since it was opened. What was read may then be a mixture."""
    try:
        current = store.version(uri)
    except FileNotFoundError:
        current = "gone"
    if current != version:
        raise changed_error(uri)


def parquet_rows(store: Store, part: Part, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    """The columns of a part of a Parquet file."""
    metadata = footer(store, part.uri, part.version)
    names = recipe.source_columns
    with store.open(part.uri, part.version) as file:
        parquet = pq.ParquetFile(file, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
        require_names(parquet.schema_arrow.names, names, part.uri)
        table = rows_of(parquet, part, names)
        int96 = int96_columns(parquet, recipe.row_schema.carried_columns)
        coarse = pq.ParquetFile(file, metadata=metadata, coerce_int96_timestamp_unit="us", page_checksum_verification=True)
        microseconds = rows_of(coarse, part, int96) if int96 else pa.table({})
    return parquet_columns(table, microseconds, recipe, carried, part.uri, part.object_rows)


def rows_of(parquet: pq.ParquetFile, part: Part, names: Sequence[str]) -> pa.Table:
    """These columns of the part's rows. Only row groups that hold some of the rows are read."""
    groups, positions = row_groups_of(parquet.metadata, part)
    batches: list[pa.RecordBatch] = []
    at = 0
    for batch in parquet.iter_batches(READ_ROWS, row_groups=groups, columns=list(names)):
        first, last = np.searchsorted(positions, [at, at + batch.num_rows])
        if first < last:
            batches.append(take_rows(batch, positions[first:last] - at))
        at += batch.num_rows
        if last == len(positions):
            break
    return pa.Table.from_batches(batches, pa.schema([parquet.schema_arrow.field(name) for name in names]))


def row_groups_of(metadata: pq.FileMetaData, part: Part) -> tuple[list[int], Numbers]:
    """The row groups that hold the part's rows, and where each row lies when these groups are read one after the other."""
    sizes = np.array([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)], np.int64)
    ends = np.cumsum(sizes)
    rows = np.array(part.object_rows, np.int64)
    rows = rows[rows < metadata.num_rows]  # the caller counts what it gets
    groups, group_of_row = np.unique(np.searchsorted(ends, rows, side="right"), return_inverse=True)
    before = np.cumsum(sizes[groups]) - sizes[groups]
    return groups.tolist(), rows - (ends - sizes)[groups][group_of_row] + before[group_of_row]


def take_rows(batch: pa.RecordBatch, rows: Numbers) -> pa.RecordBatch:
    """These rows of a batch, at least one, ascending. It joins slices, since Arrow's `take` does not know string views."""
    starts = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
    runs = [batch.slice(int(run[0]), len(run)) for run in np.split(rows, starts[1:])]
    return pa.concat_batches(runs) if len(runs) > 1 else runs[0]


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


def jsonl_rows(store: Store, part: Part, recipe: Recipe, carried: pa.Schema, row_bytes: float) -> RowColumns:
    """The columns of the lines of a part. The lines between them are read and not parsed."""
    expected_bytes = int(row_bytes * (part.skip + part.stop - part.start))
    with store.open_lines(part.uri, part.version, expected_bytes) as file:
        file.seek(part.offset or seek_first_line(file))
        not_blank = ((line, length) for line, length in read_lines(file) if not line.isspace())
        lines = islice(not_blank, part.skip, part.skip + part.stop - part.start)
        if part.picks is None:
            return jsonl_columns(lines, recipe, carried)
        picked = frozenset(part.picks)
        return jsonl_columns((line for row, line in enumerate(lines, part.start) if row in picked), recipe, carried)
