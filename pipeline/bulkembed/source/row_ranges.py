"""Arithmetic of row ranges of one object: which rows no range covers, and how such a gap is cut. Pure.

A row range is (start, stop): rows from `start` up to, but not including, `stop`."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

from bulkembed.shards import ShardId

RowRange = tuple[int, int]


def gaps(covered: Iterable[RowRange], total: int) -> list[RowRange]:
    """The rows of [0, total) that no range covers."""
    missing, at = [], 0
    for start, stop in sorted(covered):
        if start > at:
            missing.append((at, min(start, total)))
        at = max(at, stop)
    if at < total:
        missing.append((at, total))
    return missing


def disjoint(shard_ids: Iterable[ShardId]) -> list[ShardId]:
    """Shards of one object, chosen so that no two hold the same row.

    Two runs at once with other shard sizes can publish overlapping shards, and so can a run with a limit. Of two that start at
    the same row the longer one is chosen. Rows that no chosen shard holds are embedded again."""
    chosen, at = [], 0
    for shard_id in sorted(shard_ids, key=lambda shard_id: (shard_id.start, -shard_id.stop)):
        if shard_id.start >= at:
            chosen.append(shard_id)
            at = shard_id.stop
    return chosen


def cut_gap(gap: RowRange, part_rows: Sequence[int], max_rows: int) -> list[RowRange]:
    """A gap as row ranges of at most `max_rows` rows. They end where parts end, unless one part is larger."""
    start, stop = gap
    borders = [*(border for border in accumulate(part_rows) if start < border < stop), stop]
    row_ranges: list[RowRange] = []
    while start < stop:
        fitting = borders[bisect_right(borders, start + max_rows) - 1]
        if start < fitting <= start + max_rows:
            row_ranges.append((start, fitting))
            start = fitting
            continue
        # The next part alone is larger than a shard. It is cut evenly, so that no tiny piece remains.
        border = borders[bisect_right(borders, start)]
        pieces = -(-(border - start) // max_rows)
        marks = [start + (border - start) * piece // pieces for piece in range(pieces + 1)]
        row_ranges += pairwise(marks)
        start = border
    return row_ranges
