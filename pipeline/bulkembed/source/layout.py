"""A source object -> its layout: how many rows it has, and where it may be cut.

Parquet: one read of the footer. JSON lines: one pass over the whole object, which counts the rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.errors import ObjectError
from bulkembed.scans import Layout
from bulkembed.source.json_lines import require_lines
from bulkembed.source.objects import SourceObject
from bulkembed.source.text_lines import read_lines, seek_first_line
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store

PART_LINES = 1024  # rows of a part of JSON lines


def layout_of(store: Store, item: SourceObject, text_columns: Sequence[str] = ()) -> Layout:
    """Reads the footer (Parquet) or counts the lines (JSONL). Raises ObjectError where it is corrupt."""

    def read() -> Layout:
        if item.format == "jsonl":
            with store.open_lines(item.uri, item.version) as file:
                require_lines(file, item.uri)
                return scan_lines(file)
        with store.open(item.uri, item.version) as file:
            return parquet_layout(pq.ParquetFile(file), text_columns)

    try:
        return store.retrying(read, f"reading {item.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {describe_error(error)}") from error


def parquet_layout(parquet: pq.ParquetFile, text_columns: Sequence[str]) -> Layout:
    groups = [parquet.metadata.row_group(number) for number in range(parquet.num_row_groups)]
    sizes = [column_bytes(group, text_columns) for group in groups]
    return Layout([group.num_rows for group in groups], sizes, [], parquet.schema_arrow)


def column_bytes(group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """The decompressed size of these columns in a row group."""
    chunks = (group.column(number) for number in range(group.num_columns))
    return sum(chunk.total_uncompressed_size for chunk in chunks if chunk.path_in_schema in columns)


class LineScan:
    """One pass over the non-blank lines of an object of JSON lines. It remembers where every `PART_LINES`-th row starts."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.part_rows: list[int] = []
        self.part_bytes: list[int] = []
        self.offsets: list[int] = []
        self.rows = self._rows()  # each non-blank line with its length in bytes

    def _rows(self) -> Iterator[tuple[bytes, int]]:
        offset, rows = seek_first_line(self.file), 0
        for line, length in read_lines(self.file):
            if not line.isspace():
                if rows % PART_LINES == 0:
                    self.part_rows.append(0)
                    self.part_bytes.append(0)
                    self.offsets.append(offset)
                self.part_rows[-1] += 1
                self.part_bytes[-1] += length
                rows += 1
                yield line, length
            offset += length

    def read_rest(self) -> None:
        for _ in self.rows:
            pass

    def layout(self) -> Layout:
        """The layout of the rows that were read."""
        return Layout(self.part_rows, self.part_bytes, self.offsets, pa.schema([]))


def scan_lines(file: BinaryIO) -> Layout:
    """The layout of an object of JSON lines. It reads the whole object."""
    scan = LineScan(file)
    scan.read_rest()
    return scan.layout()
