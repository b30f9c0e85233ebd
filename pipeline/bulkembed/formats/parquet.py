"""Parquet: the footer tells the layout, and a part is read from the row groups that hold its rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.formats import rows
from bulkembed.formats.format import Format, ObjectVersion, Reading, present_names
from bulkembed.formats.paths import Path, below, columns_at, field_at, paths_of, schema_at, with_paths
from bulkembed.formats.rows import ArrowRows, batches_with_rows, rows_of_a_batch, take_rows
from bulkembed.formats.whole_files import open_whole
from bulkembed.scans import Layout
from bulkembed.shards import Part
from bulkembed.storage.store import Store

READ_ROWS = 16_384
Numbers = npt.NDArray[np.int64]


def layout(place: ObjectVersion, text_columns: Sequence[str]) -> Layout:
    with open_whole(place.store.open, place.store, place.uri, place.version) as file:
        return file_layout(open_parquet(file), text_columns)


def file_layout(parquet: pq.ParquetFile, text_columns: Sequence[str]) -> Layout:
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    leaves = leaves_of(paths_of(parquet.schema_arrow, text_columns))
    sizes = [column_bytes(group, leaves) for group in groups]
    return Layout([group.num_rows for group in groups], sizes, [], parquet.schema_arrow)


def leaves_of(paths: Mapping[str, Path]) -> list[str]:
    """What Parquet calls these columns. All leaves below them belong to them."""
    return [".".join(path) for path in paths.values()]


def column_bytes(group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """The decompressed size of these columns in a row group."""
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if below(chunk.path_in_schema, columns))


@contextmanager
def reading(place: ObjectVersion, names: Sequence[str], text_columns: Sequence[str]) -> Iterator[Reading]:
    with open_whole(place.store.open, place.store, place.uri, place.version) as file:
        parquet = open_parquet(file)
        coarse = pq.ParquetFile(file, metadata=parquet.metadata, coerce_int96_timestamp_unit="us", page_checksum_verification=True)
        known = file_layout(parquet, text_columns)
        if known.rows:
            source = with_paths(parquet.schema_arrow, names)
            yield Reading(source, batches(parquet, coarse, present_names(source.names, names, place.uri)), lambda: known)
        else:
            yield Reading(None, iter(()), lambda: known)


def open_parquet(file: BinaryIO, metadata: pq.FileMetaData | None = None) -> pq.ParquetFile:
    """A file that is read in batches. Texts that Arrow wrote as dictionaries are dictionaries, and within other values large strings.

    Left alone, Arrow refuses a dictionary for one text that is not UTF-8, and some row groups for a dictionary within a list."""
    parquet = pq.ParquetFile(file, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
    are_dictionaries = (pa.types.is_dictionary(kind) for kind in leaf_types(parquet.schema_arrow.types))
    paths = [parquet.schema.column(number).path for number, is_one in enumerate(are_dictionaries) if is_one]
    if not paths:
        return parquet
    columns = [path for path in paths if path in parquet.schema_arrow.names]
    return pq.ParquetFile(
        file,
        metadata=parquet.metadata,
        read_dictionary=columns,
        binary_type=pa.large_binary() if len(columns) < len(paths) else None,
        pre_buffer=True,
        page_checksum_verification=True,
    )


def leaf_types(kinds: Iterable[pa.DataType]) -> Iterator[pa.DataType]:
    """The types of all leaves, in the order of a file's columns."""
    for kind in kinds:
        if pa.types.is_nested(kind) and kind.num_fields:
            yield from leaf_types(kind.field(number).type for number in range(kind.num_fields))
        else:
            yield kind


def batches(parquet: pq.ParquetFile, coarse: pq.ParquetFile, names: Sequence[str]) -> Iterator[ArrowRows]:
    """All rows of a file. `coarse`: the same file, with INT96 timestamps in microseconds."""
    int96 = int96_columns(parquet, names)
    for groups, batch_rows in group_runs(parquet.metadata, leaves_of(paths_of(parquet.schema_arrow, names))):
        tables = cut_tables(parquet, groups, names, batch_rows)
        microseconds = cut_tables(coarse, groups, int96, batch_rows) if int96 else None
        for table in tables:
            yield ArrowRows(table, next(microseconds) if microseconds else pa.table({}))


def group_runs(metadata: pq.FileMetaData, columns: Sequence[str]) -> Iterator[tuple[list[int], int]]:
    """Row groups that are read together, of BATCH_BYTES or one; and the rows of a batch of them. Small ones are slow alone."""
    run: list[int] = []
    run_rows = run_bytes = 0
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = column_bytes(group, columns)
        if run and run_bytes + size > rows.BATCH_BYTES:
            yield run, rows_of_a_batch(run_rows, run_bytes)
            run, run_rows, run_bytes = [], 0, 0
        run.append(number)
        run_rows, run_bytes = run_rows + group.num_rows, run_bytes + size
    if run:
        yield run, rows_of_a_batch(run_rows, run_bytes)


def cut_tables(parquet: pq.ParquetFile, groups: list[int], names: Sequence[str], batch_rows: int) -> Iterator[pa.Table]:
    """The rows of these row groups in tables of `batch_rows` rows; the last may have fewer. Arrow's own batches can be shorter."""
    paths = paths_of(parquet.schema_arrow, names)
    rest = pa.Table.from_batches([], schema_at(parquet.schema_arrow, paths))
    for batch in parquet.iter_batches(batch_rows, row_groups=groups, columns=leaves_of(paths)):
        rest = pa.concat_tables([rest, pa.Table.from_batches([columns_at(batch, paths, rest.schema)])])
        while rest.num_rows >= batch_rows:
            yield rest.slice(0, batch_rows)
            rest = rest.slice(batch_rows)
    if rest.num_rows:
        yield rest


def part_rows(store: Store, part: Part, names: Sequence[str], row_bytes: float) -> ArrowRows:
    metadata = footer(store, part.uri, part.version)
    with open_whole(store.open, store, part.uri, part.version) as file:
        parquet = open_parquet(file, metadata)
        present = present_names(with_paths(parquet.schema_arrow, names).names, names, part.uri)
        table = rows_of(parquet, part, present)
        int96 = int96_columns(parquet, present)
        coarse = pq.ParquetFile(file, metadata=metadata, coerce_int96_timestamp_unit="us", page_checksum_verification=True)
        return ArrowRows(table, rows_of(coarse, part, int96) if int96 else pa.table({}))


def rows_of(parquet: pq.ParquetFile, part: Part, names: Sequence[str]) -> pa.Table:
    """These columns of the part's rows. Only row groups that hold some of the rows are read."""
    groups, positions = row_groups_of(parquet.metadata, part)
    paths = paths_of(parquet.schema_arrow, names)
    arrow = schema_at(parquet.schema_arrow, paths)
    read = parquet.iter_batches(READ_ROWS, row_groups=groups, columns=leaves_of(paths))
    picked = [take_rows(columns_at(batch, paths, arrow), numbers) for batch, numbers in batches_with_rows(read, positions)]
    return pa.Table.from_batches(picked, arrow)


def row_groups_of(metadata: pq.FileMetaData, part: Part) -> tuple[list[int], Numbers]:
    """The row groups that hold the part's rows, and where each row lies when these groups are read one after the other."""
    sizes = np.array([metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)], np.int64)
    ends = np.cumsum(sizes)
    numbers = np.array(part.object_rows, np.int64)
    numbers = numbers[numbers < metadata.num_rows]  # the caller counts what it gets
    groups, group_of_row = np.unique(np.searchsorted(ends, numbers, side="right"), return_inverse=True)
    before = np.cumsum(sizes[groups]) - sizes[groups]
    return groups.tolist(), numbers - (ends - sizes)[groups][group_of_row] + before[group_of_row]


def int96_columns(parquet: pq.ParquetFile, names: Sequence[str]) -> list[str]:
    """Columns with INT96 timestamps, as Spark writes them. Arrow reads them as nanoseconds, and wrongly before 1677 and after 2262."""
    paths = paths_of(parquet.schema_arrow, names)
    kinds = {name: field_at(parquet.schema_arrow, name, path).type for name, path in paths.items()}
    maybe = [name for name, kind in kinds.items() if pa.types.is_timestamp(kind) or pa.types.is_nested(kind)]
    leaves = (parquet.schema.column(number) for number in range(len(parquet.schema) if maybe else 0))
    int96 = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    return [name for name in maybe if any(below(leaf, leaves_of({name: paths[name]})) for leaf in int96)]


@lru_cache(maxsize=4)
def footer(store: Store, uri: str, version: str) -> pq.FileMetaData:
    """The footer of one version of an object. It is read once a process, since most shards have a neighbour in the same object."""
    with open_whole(store.open, store, uri, version) as file:
        return pq.read_metadata(file)


PARQUET = Format("parquet", (".parquet", ".pq"), (b"PAR1",), layout, reading, part_rows)
