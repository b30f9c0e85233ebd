"""Shards that wait for an engine. Pure.

Towards the end they are handed out in smaller and smaller pieces, so that all engines end together: a piece is never more
than a share of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987). A shard is a range of rows,
and so are its halves: no other run minds where it was cut."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from bulkembed.records import Shard

PIECES = 4  # of what is left, for each engine: text is not time, and some pieces take twice what they should
LEAST_BYTES = 64 << 10  # of text: smaller pieces cost more than they balance, and readers like few files
ENGINE_BYTES = 4 << 20  # of text, about a million tokens: for less, loading another model is not worth while


def engines_for(shards: Iterable[Shard]) -> int:
    """How many engines there is work for."""
    sizes = [shard.text_bytes for shard in shards]
    return max(len(sizes), sum(sizes) // ENGINE_BYTES)


class Backlog:
    """In source order."""

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        self.shards = deque(shards)
        self.text_bytes = sum(shard.text_bytes for shard in self.shards)

    def __len__(self) -> int:
        return len(self.shards)

    def take(self, engines: int) -> Shard:
        """The next one, or as much of it as one of so many engines should get."""
        shard = self.shards.popleft()
        share = max(LEAST_BYTES, self.text_bytes / (PIECES * engines)) if engines > 1 else float("inf")
        while shard.text_bytes > share and shard.rows > 1:
            shard, rest = shard.halves()
            self.shards.appendleft(rest)
        self.text_bytes -= shard.text_bytes
        return shard

    def put_back(self, *shards: Shard) -> None:
        """To be taken first, as they are: what was lost once is cut by `losses` alone."""
        self.shards.extendleft(replace(shard, text_bytes=0) for shard in reversed(shards))
