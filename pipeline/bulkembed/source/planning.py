"""Rows of source objects -> parts and shards. Pure, but for `plan`, which opens objects."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from bulkembed import stopping
from bulkembed.errors import BulkembedError, ConfigError
from bulkembed.records import Failure
from bulkembed.scans import Layout
from bulkembed.shards import Part, Shard
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import SourceObject
from bulkembed.source.row_ranges import RowRange, cut_gap
from bulkembed.storage.store import Store

INSPECT_THREADS = 16  # footers are small and far away: the threads wait for the store, and compute little

CheckObject = Callable[[SourceObject, Layout], None]  # raises ObjectError to refuse an object
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bounds:
    """How large a shard may be."""

    rows: int
    text_bytes: int  # about


def plan(
    store: Store, objects: Sequence[SourceObject], check: CheckObject, text_columns: Sequence[str], bounds: Bounds
) -> tuple[list[Shard], list[Failure]]:
    """Shards of all rows of these objects in source order, and the objects that cannot be read.

    `check` is called with every object. It raises ObjectError to refuse the object."""

    def inspect(item: SourceObject) -> Layout | Failure:
        stopping.stop.check()
        return checked_layout(store, item, text_columns, check)

    shards: list[Shard] = []
    failures: list[Failure] = []
    with ThreadPoolExecutor(INSPECT_THREADS) as pool:
        for item, layout in zip(objects, pool.map(inspect, objects), strict=True):
            if isinstance(layout, Failure):
                failures.append(layout)
            else:
                shards += shards_of_object(item, layout, bounds)
    return shards, failures


def checked_layout(store: Store, item: SourceObject, text_columns: Sequence[str], check: CheckObject) -> Layout | Failure:
    """The layout of an object; a Failure where the object is unreadable or refused by `check`."""
    try:
        layout = layout_of(store, item, text_columns)
        check(item, layout)
    except BulkembedError as error:
        if isinstance(error, ConfigError):
            raise
        return Failure(item.uri, str(error).removeprefix(f"{item.uri}: "))
    return layout


def shards_of_object(item: SourceObject, layout: Layout, bounds: Bounds) -> Iterator[Shard]:
    """Shards of all rows of an object, cut at its row groups."""
    return shards_of(item, layout, cut_gap((0, layout.rows), layout.part_rows, bounds.rows), bounds.text_bytes)


def shards_of(item: SourceObject, layout: Layout, row_ranges: list[RowRange], max_text_bytes: int) -> Iterator[Shard]:
    """Shards of these rows. A shard is halved until its text fits."""
    for (start, stop), text_bytes in zip(row_ranges, layout.text_bytes(row_ranges), strict=True):
        yield from fitting_halves(Shard((part_of(item, layout, start, stop),), text_bytes), max_text_bytes)


def part_of(item: SourceObject, layout: Layout, start: int, stop: int, picks: tuple[int, ...] | None = None) -> Part:
    """Rows [start, stop) of an object. A part of JSON lines names the nearest known line start at or before its first row."""
    offset, skip = 0, start
    if layout.offsets:
        run = bisect_right(layout.borders, start) - 1
        offset, skip = layout.offsets[run], start - layout.borders[run]
    return Part(item.id, item.uri, item.relative_path, item.version, item.format, start, stop, layout.rows, offset, skip, picks)


def part_of_rows(item: SourceObject, layout: Layout, rows: Rows) -> Part:
    """Some rows of an object. `rows`: ascending."""
    start, stop = int(rows[0]), int(rows[-1]) + 1
    return part_of(item, layout, start, stop, None if stop - start == len(rows) else tuple(rows.tolist()))


def fitting_halves(shard: Shard, max_text_bytes: int) -> Iterator[Shard]:
    """The shard, halved until no part has more text than that. One row is never cut."""
    if shard.text_bytes <= max_text_bytes or shard.rows == 1:
        yield shard
    else:
        for half in shard.halves():
            yield from fitting_halves(half, max_text_bytes)


def gathered(opened: Iterator[tuple[SourceObject, Layout, Rows]], bounds: Bounds, parent: int) -> Iterator[Shard]:
    """Shards of some rows of many objects. A shard is filled with rows of one object after the other."""
    parts: list[Part] = []
    n_rows, text_bytes = 0, 0.0
    for item, layout, rows in opened:
        before, start = np.concatenate([[0.0], np.cumsum(text_sizes(layout, rows))]), 0  # bytes of text before each row
        while start < len(rows):
            fitting = int(np.searchsorted(before, before[start] + bounds.text_bytes - text_bytes, side="right")) - 1
            stop = min(start + bounds.rows - n_rows, fitting)
            if parts and stop <= start:
                yield Shard(tuple(parts), int(text_bytes), parent)
                parts, n_rows, text_bytes = [], 0, 0.0
                continue
            stop = max(stop, start + 1)  # one row is never cut
            parts.append(part_of_rows(item, layout, rows[start:stop]))
            n_rows, text_bytes, start = n_rows + stop - start, text_bytes + float(before[stop] - before[start]), stop
    if parts:
        yield Shard(tuple(parts), int(text_bytes), parent)


def text_sizes(layout: Layout, rows: Rows) -> npt.NDArray[np.float64]:
    """About how many bytes of text each of these rows has."""
    before = [0, *accumulate(layout.part_bytes)]
    sizes: npt.NDArray[np.float64] = np.interp(rows + 1, layout.borders, before) - np.interp(rows, layout.borders, before)
    return sizes
