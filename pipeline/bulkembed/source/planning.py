"""What exists: source objects, their length in rows, and the shards that are still to do.

A shard's id holds the object's id (path and version), the row range and the object's length, so
the names of the receipts alone say which objects are done: those are never opened again.
The cut of the rest is a pure function of the rows that are not covered yet, whatever sizes
earlier runs used.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import stopping
from bulkembed.errors import BulkembedError, ConfigError, ObjectError
from bulkembed.records import Counts, Failure, LeftOutNames, Shard, SourceObject
from bulkembed.source.json_lines import require_lines
from bulkembed.source.objects import SourceListing, source_listing
from bulkembed.source.row_ranges import Range, cut, disjoint, gaps, parse
from bulkembed.storage.retry import CORRUPT, describe
from bulkembed.storage.store import Store, first_line, lines

PART_LINES = 1024
INSPECT_THREADS = 16  # footers are small and far away: this waits, it does not compute


@dataclass(frozen=True)
class Layout:
    """Where an object may be cut: rows of each part, and for JSONL the byte offset of each part."""

    part_rows: list[int]  # Parquet: row groups; JSONL: runs of PART_LINES lines
    part_bytes: list[int]  # of each part's text, decompressed; JSONL: of its lines
    offsets: list[int]  # JSONL: byte offset of each part, else empty
    schema: pa.Schema  # JSONL: empty, since every row has its own

    @property
    def rows(self) -> int:
        return self.borders[-1]

    @cached_property
    def borders(self) -> list[int]:
        """Rows before each part, and at the end."""
        return [0, *accumulate(self.part_rows)]

    def text_bytes(self, ranges: Sequence[Range]) -> list[int]:
        """Of each range of rows, as if the text of a part were spread evenly."""
        before = np.interp(np.array(ranges, np.float64).reshape(-1, 2), self.borders, [0, *accumulate(self.part_bytes)])
        return [int(size) for size in np.diff(before, axis=1)[:, 0]]


@dataclass(frozen=True)
class Plan:
    """What a run would do, in source order. `done` and `pending` together are the dataset: with a limit, exactly its rows."""

    objects: list[SourceObject]
    done: list[str]  # ids of published shards of these objects
    pending: list[Shard]
    failures: list[Failure]  # objects that cannot be read
    held_back: str | None = None  # why this dataset would not be published over the newest one
    shrunk: str | None = None  # the same, whatever became of the rows
    done_counts: Counts = field(default_factory=Counts)  # of what is done; where no bound needs them, they are not read
    listing: SourceListing = field(default_factory=SourceListing)  # where the objects come from

    @property
    def left_out(self) -> list[LeftOutNames]:
        return self.listing.left_out

    @cached_property
    def rows_done(self) -> int:
        return sum(stop - start for _, start, stop, _ in map(parse, self.done))

    @cached_property
    def rows_pending(self) -> int:
        return sum(shard.rows for shard in self.pending)


def source_objects(store: Store, source: str) -> list[SourceObject]:
    """The corpus in source order. Raises SourceError as `source_listing` does."""
    return source_listing(store, source).objects


def plan(
    store: Store,
    objects: list[SourceObject],
    done: Iterable[str],
    most_rows: int,
    limit: int | None,
    check: Callable[[SourceObject, Layout], None],
    text_columns: Sequence[str] = (),
    most_bytes: int | None = None,
) -> Plan:
    """Shards still to do, of at most so many rows and (about) bytes of text each. `check` sees every object that is
    opened and may refuse it (ObjectError)."""
    published: dict[str, list[str]] = {}
    for shard_id in done:
        published.setdefault(parse(shard_id)[0], []).append(shard_id)
    covered = {item: disjoint(shard_ids) for item, shard_ids in published.items()}

    def inspect(item: SourceObject) -> Layout | Failure | None:
        stopping.stop.check()
        mine = covered.get(item.id)
        if mine and not open_rows(mine, total_rows(mine)):
            return None  # all of it is done: no need to open it
        return opened(item)

    def opened(item: SourceObject) -> Layout | Failure:
        try:
            layout = layout_of(store, item, text_columns)
            check(item, layout)
        except BulkembedError as error:
            if isinstance(error, ConfigError):
                raise
            return Failure(item.uri, str(error).removeprefix(f"{item.uri}: "))
        return layout

    finished: list[str] = []
    pending: list[Shard] = []
    failures: list[Failure] = []
    left = limit if limit is not None else float("inf")
    with ThreadPoolExecutor(INSPECT_THREADS) as pool:
        for item, inspected in zip(objects, pool.map(inspect, objects), strict=True):
            if left <= 0:
                break
            mine = covered.get(item.id, [])
            # A done shard may reach beyond the limit.
            layout = opened(item) if inspected is None and total_rows(mine) > left else inspected
            if isinstance(layout, Failure):
                failures.append(layout)
                continue
            total = layout.rows if layout else total_rows(mine)
            if total > left:
                mine = disjoint(each for each in published.get(item.id, []) if parse(each)[2] <= left)
            finished += mine
            if layout:
                for gap in open_rows(mine, int(min(total, left))):
                    pending += shards(item, layout, cut(gap, layout.part_rows, most_rows), most_bytes)
            left -= total
    return Plan(objects, finished, pending, failures)


def open_rows(shard_ids: Iterable[str], end: int) -> list[Range]:
    """Rows of an object before row `end` that none of its shards holds."""
    return gaps([(start, stop) for _, start, stop, _ in map(parse, shard_ids)], end)


def total_rows(shard_ids: Sequence[str]) -> int:
    """Of the object that these are shards of."""
    return parse(shard_ids[0])[3]


def shards(item: SourceObject, layout: Layout, ranges: list[Range], most_bytes: int | None) -> Iterator[Shard]:
    """Of these rows, halved until each fits; for JSONL with the nearest known line start at or before the first."""
    for (start, stop), text_bytes in zip(ranges, layout.text_bytes(ranges), strict=True):
        offset, skip = 0, start
        if layout.offsets:
            part = bisect_right(layout.borders, start) - 1
            offset, skip = layout.offsets[part], start - layout.borders[part]
        found = [Shard(item.id, item.uri, item.version, item.format, start, stop, layout.rows, offset, skip, text_bytes)]
        while found:
            shard = found.pop()
            if most_bytes is None or shard.text_bytes <= most_bytes or shard.rows == 1:
                yield shard
            else:
                found += reversed(shard.halves())


def layout_of(store: Store, item: SourceObject, text_columns: Sequence[str] = ()) -> Layout:
    """Reads the footer (Parquet) or counts the lines (JSONL). Raises ObjectError where it is corrupt."""

    def read() -> Layout:
        if item.format == "jsonl":
            with store.open_lines(item.uri, item.version) as file:
                require_lines(file, item.uri)
                return scan_lines(file)
        with store.open(item.uri, item.version) as file:
            parquet = pq.ParquetFile(file)
            metadata = parquet.metadata
            groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
            sizes = [text_bytes(group, text_columns) for group in groups]
            return Layout([group.num_rows for group in groups], sizes, [], parquet.schema_arrow)

    try:
        return store.retrying(read, f"reading {item.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {describe(error)}") from error


def text_bytes(group: pq.RowGroupMetaData, columns: Sequence[str]) -> int:
    """Of a row group, decompressed."""
    found = (group.column(number) for number in range(group.num_columns))
    return sum(column.total_uncompressed_size for column in found if column.path_in_schema in columns)


def scan_lines(file: BinaryIO) -> Layout:
    """Counts non-blank lines, and remembers where every `PART_LINES`-th starts."""
    part_rows: list[int] = []
    part_bytes: list[int] = []
    offsets: list[int] = []
    offset, rows = first_line(file), 0
    for line, length in lines(file):
        if not line.isspace():
            if rows % PART_LINES == 0:
                part_rows.append(0)
                part_bytes.append(0)
                offsets.append(offset)
            part_rows[-1] += 1
            part_bytes[-1] += length
            rows += 1
        offset += length
    return Layout(part_rows, part_bytes, offsets, pa.schema([]))
