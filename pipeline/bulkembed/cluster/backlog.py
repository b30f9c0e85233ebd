"""Shards that wait for an actor. Pure.

Towards the end they are handed out in smaller and smaller pieces, so that all actors end together. A piece is never
more than a share of what is left (guided self-scheduling, Polychronopoulos and Kuck, 1987). Cutting is free: a shard
is rows of source objects, and so are its halves."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import replace

from bulkembed.shards import Shard

PIECES_PER_ACTOR = 4  # of what is left: text is only an estimate of time, and some pieces take twice as long as others
MIN_PIECE_BYTES = 64 << 10  # of text: smaller pieces cost more than they balance, and readers prefer few files
MIN_ACTOR_BYTES = 4 << 20  # of text, about a million tokens: loading the model once more is not worth it for less


def useful_actors(shards: Iterable[Shard]) -> int:
    """How many actors there is work for: one a shard, or more where shards are large enough to be cut."""
    sizes = [shard.text_bytes for shard in shards]
    return max(len(sizes), sum(sizes) // MIN_ACTOR_BYTES)


class Backlog:
    """The waiting shards, in source order."""

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        self.shards = deque(shards)
        self.text_bytes = sum(shard.text_bytes for shard in self.shards)

    def __len__(self) -> int:
        return len(self.shards)

    def take(self, actors: int) -> Shard:
        """The next shard, or its first part: as much as one of `actors` actors should get."""
        shard = self.shards.popleft()
        max_bytes = max(MIN_PIECE_BYTES, self.text_bytes / (PIECES_PER_ACTOR * actors)) if actors > 1 else float("inf")
        while shard.text_bytes > max_bytes and shard.rows > 1:
            shard, rest = shard.halves()
            self.shards.appendleft(rest)
        self.text_bytes -= shard.text_bytes
        return shard

    def put_back(self, *shards: Shard) -> None:
        """Puts shards of a lost attempt first. `take` does not cut them: their text counts as 0, and only `recovery` halves them."""
        self.shards.extendleft(replace(shard, text_bytes=0) for shard in reversed(shards))
