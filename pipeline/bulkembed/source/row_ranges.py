"""Ranges of an object's rows: in shard ids, what they leave open, and how that is cut."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import accumulate, pairwise

Range = tuple[int, int]
SHARD_ID = re.compile(r"(?P<object>.+)-(?P<start>\d{10})-(?P<stop>\d{10})-of-(?P<total>\d{10})")


def parse(shard_id: str) -> tuple[str, int, int, int]:
    """(object id, start, stop, total) of a shard id. Raises ValueError for any other name."""
    match = SHARD_ID.fullmatch(shard_id)
    if match is None:
        raise ValueError(f"{shard_id!r} is no shard id")
    return match["object"], int(match["start"]), int(match["stop"]), int(match["total"])


def readable_name(object_id: str) -> str:
    """What `manifest.object_id` made of an object's path: the id without the hash, which changes with every version."""
    return object_id.rsplit("-", 1)[0]


def gaps(covered: Iterable[Range], total: int) -> list[Range]:
    """Rows of [0, total) that no range covers."""
    missing, at = [], 0
    for start, stop in sorted(covered):
        if start > at:
            missing.append((at, min(start, total)))
        at = max(at, stop)
    if at < total:
        missing.append((at, total))
    return missing


def disjoint(shard_ids: Iterable[str]) -> list[str]:
    """Shards of one object of which no two hold the same row. Two runs at once with other shard
    sizes can publish overlapping ones, and so can a run with a limit. Of two that start alike the longer one is
    chosen. What the chosen ones leave open is then embedded again."""

    def longest_first(shard_id: str) -> Range:
        _, start, stop, _ = parse(shard_id)
        return start, -stop

    chosen, at = [], 0
    for shard_id in sorted(shard_ids, key=longest_first):
        _, start, stop, _ = parse(shard_id)
        if start >= at:
            chosen.append(shard_id)
            at = stop
    return chosen


def cut(gap: Range, part_rows: Sequence[int], most_rows: int) -> list[Range]:
    """A gap as ranges of at most `most_rows`, ending where parts end unless one part is larger."""
    start, stop = gap
    borders = [*(border for border in accumulate(part_rows) if start < border < stop), stop]
    ranges: list[Range] = []
    while start < stop:
        fitting = borders[bisect_right(borders, start + most_rows) - 1]
        if start < fitting <= start + most_rows:
            ranges.append((start, fitting))
            start = fitting
            continue
        # The next part alone is larger than a shard: cut it evenly, so that no tiny piece remains.
        border = borders[bisect_right(borders, start)]
        pieces = -(-(border - start) // most_rows)
        marks = [start + (border - start) * piece // pieces for piece in range(pieces + 1)]
        ranges += pairwise(marks)
        start = border
    return ranges
