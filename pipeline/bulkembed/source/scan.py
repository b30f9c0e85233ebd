"""A source object -> the keys of its documents, its rejects and its layout, by one reading from front to back.

The same functions decide here and when a shard is read whether a row is a document: see row_columns and documents. Memory holds the
keys of all rows, the rejects, and one batch of rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import row_keys, schema, stopping
from bulkembed.config.recipe import Recipe
from bulkembed.errors import ObjectError
from bulkembed.records import Documents
from bulkembed.row_keys import Keys
from bulkembed.scans import Layout, Scan, ScanCounts
from bulkembed.source.columns import require_columns
from bulkembed.source.documents import split_rows
from bulkembed.source.json_lines import require_lines
from bulkembed.source.layout import LineScan, parquet_layout
from bulkembed.source.objects import SourceObject
from bulkembed.source.reader import int96_columns, require_unchanged
from bulkembed.source.row_columns import RowColumns, jsonl_columns, parquet_columns
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store

BATCH_ROWS = 16_384
BATCH_BYTES = 64 << 20  # of decompressed values, unless one row has more


def scan_object(store: Store, item: SourceObject, recipe: Recipe, carried: pa.Schema) -> Scan:
    """Reads an object once. `carried`: the schema of the id and the kept columns in the output.

    Raises ObjectError where the object is corrupt, lacks a column, or changed since it was listed."""

    def read() -> Scan:
        if item.format == "jsonl":
            with store.open_lines(item.uri, item.version) as file:
                return scan_lines(file, item, recipe, carried)
        with store.open(item.uri, item.version) as file:
            return scan_parquet(file, item, recipe, carried)

    try:
        scan = store.retrying(read, f"reading {item.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {describe_error(error)}") from error
    require_unchanged(store, item.uri, item.version)
    return scan


def scan_lines(file: BinaryIO, item: SourceObject, recipe: Recipe, carried: pa.Schema) -> Scan:
    require_lines(file, item.uri)
    lines = LineScan(file)
    batches = (jsonl_columns(batch, recipe, carried) for batch in line_batches(lines.rows))
    documents = scan_batches(batches, item, recipe, carried)
    return scan_of(lines.layout(), documents, carried)


def line_batches(lines: Iterable[tuple[bytes, int]]) -> Iterator[list[tuple[bytes, int]]]:
    """Lines in batches of at most BATCH_ROWS lines, and of one line more than BATCH_BYTES at most."""
    batch: list[tuple[bytes, int]] = []
    size = 0
    for line, length in lines:
        batch.append((line, length))
        size += len(line)
        if len(batch) == BATCH_ROWS or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def scan_parquet(file: BinaryIO, item: SourceObject, recipe: Recipe, carried: pa.Schema) -> Scan:
    parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
    layout = parquet_layout(parquet, recipe.vector_key.text_columns)
    require_columns(recipe, item, layout)
    tables = parquet_tables(file, parquet, recipe) if layout.rows else iter(())
    batches = (
        parquet_columns(table, microseconds, recipe, carried, item.uri, range(first, first + table.num_rows))
        for table, microseconds, first in tables
    )
    return scan_of(layout, scan_batches(batches, item, recipe, carried), carried)


def parquet_tables(file: BinaryIO, parquet: pq.ParquetFile, recipe: Recipe) -> Iterator[tuple[pa.Table, pa.Table, int]]:
    """The rows of a file in batches: the columns, those with INT96 timestamps once more in microseconds, and the first row."""
    names = list(recipe.source_columns)
    int96 = int96_columns(parquet, recipe.row_schema.carried_columns)
    coarse = pq.ParquetFile(file, metadata=parquet.metadata, coerce_int96_timestamp_unit="us", page_checksum_verification=True)
    first = 0
    for groups, rows in group_runs(parquet.metadata, names):
        tables = cut_tables(parquet, groups, names, rows)
        microseconds = cut_tables(coarse, groups, int96, rows) if int96 else None
        for table in tables:
            yield table, next(microseconds) if microseconds else pa.table({}), first
            first += table.num_rows


def group_runs(metadata: pq.FileMetaData, names: Sequence[str]) -> Iterator[tuple[list[int], int]]:
    """Row groups that are read together, of BATCH_BYTES or one; and the rows of a batch of them. Small ones are slow alone."""
    run: list[int] = []
    run_rows = run_bytes = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        leaves = (group.column(leaf) for leaf in range(group.num_columns))
        size = sum(leaf.total_uncompressed_size for leaf in leaves if leaf.path_in_schema.split(".")[0] in names)
        if run and run_bytes + size > BATCH_BYTES:
            yield run, batch_rows(run_rows, run_bytes)
            run, run_rows, run_bytes = [], 0, 0
        run.append(number)
        run_rows, run_bytes = run_rows + group.num_rows, run_bytes + size
    if run:
        yield run, batch_rows(run_rows, run_bytes)


def batch_rows(rows: int, size: int) -> int:
    """How many of these rows, which have `size` bytes together, make a batch."""
    return max(1, min(BATCH_ROWS, rows * BATCH_BYTES // max(1, size)))


def cut_tables(parquet: pq.ParquetFile, groups: list[int], names: list[str], rows: int) -> Iterator[pa.Table]:
    """The rows of these row groups in tables of `rows` rows; the last may have fewer. Arrow's own batches can be shorter."""
    arrow = pa.schema([parquet.schema_arrow.field(name) for name in names])
    rest = pa.Table.from_batches([], arrow)
    for batch in parquet.iter_batches(rows, row_groups=groups, columns=names):
        rest = pa.concat_tables([rest, pa.Table.from_batches([batch.select(names)], arrow)])
        while rest.num_rows >= rows:
            yield rest.slice(0, rows)
            rest = rest.slice(rows)
    if rest.num_rows:
        yield rest


def scan_batches(
    batches: Iterable[RowColumns], item: SourceObject, recipe: Recipe, carried: pa.Schema
) -> tuple[list[Keys], list[pa.Table], int]:
    """Keys and rejects of each batch, and the bytes of all texts."""
    keys: list[Keys] = []
    rejects: list[pa.Table] = []
    first = text_bytes = 0
    for columns in batches:
        stopping.stop.check()
        object_rows = range(first, first + columns.rows.num_rows)
        documents = split_rows(columns, recipe, carried, item.uri, object_rows)
        keys.append(keys_of_documents(documents, recipe, first))
        if documents.rejects.num_rows:
            rejects.append(documents.rejects)
        text_bytes += len("".join(documents.texts).encode())
        first = object_rows.stop
    return keys, rejects, text_bytes


def keys_of_documents(documents: Documents, recipe: Recipe, first_row: int) -> Keys:
    """The keys of documents. `first_row`: the row of the object at which their numbers begin."""
    return Keys(
        ids=row_keys.id_hashes(documents.rows["id"]),
        contents=row_keys.content_hashes(documents.texts),
        kept=row_keys.kept_hashes(documents.rows, recipe.row_schema.keep_columns),
        rows=documents.numbers + first_row,
        owners=np.zeros(len(documents.numbers), np.int32),
    )


def scan_of(layout: Layout, batches: tuple[list[Keys], list[pa.Table], int], carried: pa.Schema) -> Scan:
    keys, text_bytes = Keys.concat(batches[0]), batches[2]
    rejects = pa.concat_tables([schema.empty_table(schema.rejects_schema(carried.field("id").type)), *batches[1]])
    counts = ScanCounts(len(keys) + rejects.num_rows, len(keys), rejects.num_rows, text_bytes)
    if counts.rows != layout.rows:
        raise AssertionError(f"{counts.rows} rows were read, and the layout has {layout.rows}")
    return Scan(layout, keys, rejects, counts)
