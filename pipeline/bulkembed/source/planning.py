"""Source objects and published shard ids -> a plan: the shards that are done, and those still to do.

A shard's id holds the object's id (path and version), the row range and the object's length. The names of the receipts
alone therefore say which objects are done, and those are never opened again. The remaining rows are cut by a pure
function of the rows that no published shard holds, whatever shard sizes earlier runs used.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from types import MappingProxyType

from bulkembed import stopping
from bulkembed.errors import BulkembedError, ConfigError
from bulkembed.records import Counts, Failure
from bulkembed.scans import Layout
from bulkembed.shards import Part, Shard, ShardId
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import LeftOutNames, SourceListing, SourceObject
from bulkembed.source.row_ranges import RowRange, cut_gap, disjoint, gaps
from bulkembed.storage.store import Store

INSPECT_THREADS = 16  # footers are small and far away: the threads wait for the store, and compute little

CheckObject = Callable[[SourceObject, Layout], None]  # raises ObjectError to refuse an object


@dataclass(frozen=True)
class ShardPlan:
    """Shards that are done and shards that are pending, in source order. Together they are the dataset: with a limit, exactly its rows."""

    objects: list[SourceObject]
    done: list[str]  # ids of published shards of these objects
    pending: list[Shard]
    failures: list[Failure]  # objects that cannot be read
    held_back: str | None = None  # why this dataset would not be published over the newest one
    shrunk: str | None = None  # the same, if rejects are not considered
    done_counts: Counts = field(default_factory=Counts)  # of the done shards; zero where no bound needs them
    listing: SourceListing = field(default_factory=SourceListing)  # where the objects come from

    @property
    def left_out(self) -> list[LeftOutNames]:
        return self.listing.left_out

    @cached_property
    def rows_done(self) -> int:
        return sum(ShardId.parse(shard_id).rows for shard_id in self.done)

    @cached_property
    def rows_pending(self) -> int:
        return sum(shard.rows for shard in self.pending)


def plan(
    store: Store,
    objects: list[SourceObject],
    done: Iterable[str],
    max_rows: int,
    limit: int | None,
    check: CheckObject,
    text_columns: Sequence[str] = (),
    max_text_bytes: int | None = None,
    layouts: Mapping[str, Layout] = MappingProxyType({}),
) -> ShardPlan:
    """Shards still to do, of at most `max_rows` rows and about `max_text_bytes` bytes of text each.

    `check` is called with every object that is opened. It raises ObjectError to refuse the object. `layouts`: those that are known
    already, by object id."""
    published = shards_by_object(done)
    covered = {object_id: disjoint(shard_ids) for object_id, shard_ids in published.items()}

    def open_object(item: SourceObject) -> Layout | Failure:
        return checked_layout(store, item, text_columns, check, layouts.get(item.id))

    def inspect(item: SourceObject) -> Layout | Failure | None:
        stopping.stop.check()
        return None if is_complete(covered.get(item.id, [])) else open_object(item)

    finished: list[str] = []
    pending: list[Shard] = []
    failures: list[Failure] = []
    left = limit if limit is not None else float("inf")
    with ThreadPoolExecutor(INSPECT_THREADS) as pool:
        for item, inspected in zip(objects, pool.map(inspect, objects), strict=True):
            if left <= 0:
                break
            shard_ids = covered.get(item.id, [])
            # A done shard may reach beyond the limit.
            layout = open_object(item) if inspected is None and shard_ids[0].total > left else inspected
            if isinstance(layout, Failure):
                failures.append(layout)
                continue
            total = layout.rows if layout else shard_ids[0].total
            if total > left:
                shard_ids = disjoint(shard_id for shard_id in published.get(item.id, []) if shard_id.stop <= left)
            finished += map(str, shard_ids)
            if layout:
                for gap in open_rows(shard_ids, int(min(total, left))):
                    pending += shards_of(item, layout, cut_gap(gap, layout.part_rows, max_rows), max_text_bytes)
            left -= total
    return ShardPlan(objects, finished, pending, failures)


def checked_layout(
    store: Store, item: SourceObject, text_columns: Sequence[str], check: CheckObject, known: Layout | None
) -> Layout | Failure:
    """The layout of an object, read unless it is known; a Failure where the object is unreadable or refused by `check`."""
    try:
        layout = known or layout_of(store, item, text_columns)
        check(item, layout)
    except BulkembedError as error:
        if isinstance(error, ConfigError):
            raise
        return Failure(item.uri, str(error).removeprefix(f"{item.uri}: "))
    return layout


def shards_by_object(done: Iterable[str]) -> dict[str, list[ShardId]]:
    """Published shards by the id of their object."""
    published: dict[str, list[ShardId]] = {}
    for shard_id in map(ShardId.parse, done):
        published.setdefault(shard_id.object_id, []).append(shard_id)
    return published


def is_complete(shard_ids: Sequence[ShardId]) -> bool:
    """Whether these shards hold every row of their object, so that it need not be opened."""
    return bool(shard_ids) and not open_rows(shard_ids, shard_ids[0].total)


def open_rows(shard_ids: Iterable[ShardId], end: int) -> list[RowRange]:
    """The rows of an object before row `end` that none of its shards holds."""
    return gaps([shard_id.row_range for shard_id in shard_ids], end)


def shards_of(item: SourceObject, layout: Layout, row_ranges: list[RowRange], max_text_bytes: int | None) -> Iterator[Shard]:
    """Shards of these rows. A shard is halved until its text fits."""
    for (start, stop), text_bytes in zip(row_ranges, layout.text_bytes(row_ranges), strict=True):
        yield from fitting_halves(Shard((part_of(item, layout, start, stop),), text_bytes), max_text_bytes)


def part_of(item: SourceObject, layout: Layout, start: int, stop: int) -> Part:
    """Rows [start, stop) of an object. A part of JSON lines names the nearest known line start at or before its first row."""
    offset, skip = 0, start
    if layout.offsets:
        run = bisect_right(layout.borders, start) - 1
        offset, skip = layout.offsets[run], start - layout.borders[run]
    return Part(item.id, item.uri, item.version, item.format, start, stop, layout.rows, offset, skip)


def fitting_halves(shard: Shard, max_text_bytes: int | None) -> Iterator[Shard]:
    """The shard, halved until no part has more text than that. One row is never cut."""
    if max_text_bytes is None or shard.text_bytes <= max_text_bytes or shard.rows == 1:
        yield shard
    else:
        for half in shard.halves():
            yield from fitting_halves(half, max_text_bytes)
