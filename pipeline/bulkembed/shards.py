"""What is embedded at a time: rows of source objects, and the names of the files that come of them."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import accumulate
from operator import lt
from typing import Literal, NamedTuple, cast

import numpy as np

FormatName = Literal["parquet", "jsonl", "csv", "tsv", "arrow", "text"]  # of a source object
# How a data file came to be: all rows of a range, embedded documents of a night, or an older file that was rewritten.
Kind = Literal["", "e", "w"]
SHARD_ID = re.compile(r"(?P<object>.+)-(?P<start>[0-9]{10})-(?P<stop>[0-9]{10})-of-(?P<total>[0-9]{10})")
FILE_NAME = re.compile(r"(?P<stem>.+)-(?P<kind>[ew])(?P<parent>[0-9]{8,})-(?P<digest>[0-9a-f]{16})")


class ShardId(NamedTuple):
    """A row range of an object: its id, the range and its length.

    A listing of such names alone tells which rows of which objects are done."""

    object_id: str
    start: int
    stop: int
    total: int  # rows of the whole object

    def __str__(self) -> str:
        return f"{self.object_id}-{self.start:010d}-{self.stop:010d}-of-{self.total:010d}"

    @classmethod
    def parse(cls, text: str) -> ShardId:
        """The inverse of `str`. Raises ValueError for any other name."""
        match = SHARD_ID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no shard id")
        return cls(match["object"], int(match["start"]), int(match["stop"]), int(match["total"]))

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def row_range(self) -> tuple[int, int]:
        return self.start, self.stop


class FileName(NamedTuple):
    """The name of a data file without its suffix. Names sort in source order.

    Without a kind the file holds all rows of its stem. Otherwise the stem is that of its first rows, and the digest tells files apart."""

    stem: ShardId
    kind: Kind = ""
    parent: int = 0  # the snapshot that the file was planned from
    digest: str = ""  # 16 hex digits of what the file is made of

    def __str__(self) -> str:
        return f"{self.stem}-{self.kind}{self.parent:08d}-{self.digest}" if self.kind else str(self.stem)

    @classmethod
    def parse(cls, text: str) -> FileName:
        """The inverse of `str`. Raises ValueError for any other name."""
        match = FILE_NAME.fullmatch(text)
        if match is None:
            return cls(ShardId.parse(text))
        return cls(ShardId.parse(match["stem"]), cast(Kind, match["kind"]), int(match["parent"]), match["digest"])


@dataclass(frozen=True)
class Part:
    """Rows of one source object: those of [start, stop), or only the picked ones of them."""

    object_id: str
    uri: str
    path: str  # of the object, below the source
    version: str
    format: FormatName
    start: int
    stop: int
    total: int  # rows of the whole object
    offset: int = 0  # lines: the byte offset of a line start in the decompressed object
    skip: int = 0  # lines: how many rows lie between that offset and row `start`
    picks: tuple[int, ...] | None = None  # ascending rows of the object; None: all of [start, stop)

    def __post_init__(self) -> None:
        ascending = self.picks is None or all(map(lt, self.picks, self.picks[1:]))
        if not ascending or (self.picks and not self.start <= self.picks[0] <= self.picks[-1] < self.stop):
            raise ValueError(f"{self.uri}: picks must be ascending rows of [{self.start}, {self.stop})")

    @property
    def object_rows(self) -> Sequence[int]:
        """The rows of the object, in order."""
        return range(self.start, self.stop) if self.picks is None else self.picks

    @property
    def rows(self) -> int:
        return len(self.object_rows)

    @property
    def stem(self) -> ShardId:
        return ShardId(self.object_id, self.start, self.stop, self.total)

    def slice(self, first: int, last: int) -> Part:
        """Rows [first, last) of this part, counted within it. There must be at least one."""
        rows = self.object_rows[first:last]
        if (first, last) == (0, self.rows):
            return self
        start, stop = rows[0], rows[-1] + 1
        picks = tuple(rows) if stop - start > len(rows) else None
        return replace(self, start=start, stop=stop, skip=self.skip + start - self.start, picks=picks)


@dataclass(frozen=True)
class Shard:
    """The unit of work, of retry and of output: rows of one or more source objects. Its rows are counted over all parts."""

    parts: tuple[Part, ...]
    text_bytes: int = 0  # estimated size of the text, for balancing; 0 where it is unknown
    parent: int = 0  # the snapshot that it was planned from; 0 for none

    @cached_property
    def starts(self) -> list[int]:
        """The row of the shard at which each part starts, and the number of all rows."""
        return [0, *accumulate(part.rows for part in self.parts)]

    @property
    def rows(self) -> int:
        return self.starts[-1]

    def slice(self, first: int, last: int) -> Shard:
        """A shard of rows [first, last) of this one. Its share of the text is that of its rows. Raises ValueError where there are none."""
        if not 0 <= first < last <= self.rows:
            raise ValueError(f"{self.id}: has no rows {first} to {last}")
        parts = [
            part.slice(max(first - start, 0), min(last - start, part.rows))
            for part, start in zip(self.parts, self.starts, strict=False)
            if first < start + part.rows and start < last
        ]
        text_bytes = self.text_bytes * last // self.rows - self.text_bytes * first // self.rows
        return replace(self, parts=tuple(parts), text_bytes=text_bytes)

    def halves(self) -> tuple[Shard, Shard]:
        """Two shards with half of the rows each. The shard must have at least two rows."""
        middle = self.rows // 2
        return self.slice(0, middle), self.slice(middle, self.rows)

    def origins(self, rows: Iterable[int]) -> list[tuple[str, int]]:
        """Where rows of this shard come from: the URI of the object, and the row of the object."""
        origins = []
        for row in rows:
            number = bisect_right(self.starts, row) - 1
            part = self.parts[number]
            origins.append((part.uri, part.object_rows[row - self.starts[number]]))
        return origins

    @cached_property
    def id(self) -> str:
        """The text of its FileName, which names the output files."""
        first = self.parts[0]
        if len(self.parts) == 1 and first.picks is None and not self.parent:
            return str(FileName(first.stem))
        return str(FileName(first.stem, "e", self.parent, digest_of(self.parts)))

    @property
    def source(self) -> str:
        """Its objects as one text: the URI of the first, and how many more there are."""
        uris = dict.fromkeys(part.uri for part in self.parts)
        return self.parts[0].uri + (f" and {len(uris) - 1} more" if len(uris) > 1 else "")


def digest_of(parts: Iterable[Part]) -> str:
    """16 hex digits of which rows of which object versions these are."""
    digest = blake2b(digest_size=8)
    for part in parts:
        digest.update(f"{part.stem} {part.rows}\n".encode())
        digest.update(np.array([] if part.picks is None else part.picks, "<i8").tobytes())
    return digest.hexdigest()
