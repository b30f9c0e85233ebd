"""What one reading of a source object tells: its layout, the keys of its documents, and its rejects."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate

import numpy as np
import pyarrow as pa

from bulkembed.row_keys import Keys


@dataclass(frozen=True)
class Layout:
    """Where an object may be cut: the rows of each part, and for lines the byte offset of each part."""

    part_rows: list[int]  # Parquet: row groups; lines: runs of text_lines.PART_ROWS rows
    part_bytes: list[int]  # decompressed size of each part's text columns; lines: of the lines
    offsets: list[int]  # lines: byte offset of each part; else empty
    schema: pa.Schema | None  # None where every row has columns of its own, and where the layout comes from a key file

    @property
    def rows(self) -> int:
        return self.borders[-1]

    @cached_property
    def borders(self) -> list[int]:
        """Rows before each part, and at the end."""
        return [0, *accumulate(self.part_rows)]

    def text_bytes(self, row_ranges: Sequence[tuple[int, int]]) -> list[int]:
        """The estimated text size of each range of rows. It assumes that the rows of a part have equally long texts."""
        before = np.interp(np.array(row_ranges, np.float64).reshape(-1, 2), self.borders, [0, *accumulate(self.part_bytes)])
        return [int(size) for size in np.diff(before, axis=1)[:, 0]]


@dataclass(frozen=True)
class ScanCounts:
    """How much one object version holds."""

    rows: int  # documents + rejects
    documents: int
    rejects: int
    text_bytes: int  # UTF-8 bytes of the documents as they are embedded
    repaired: int = 0  # rows where U+FFFD stands for what is no Unicode, or null for an invalid time
    absent: list[str] = field(default_factory=list)  # columns of the run that a table lacks: they are null
    reasons: dict[str, int] = field(default_factory=dict)  # number of rejects by reason


@dataclass(frozen=True, eq=False)
class Scan:
    """One object version that was read whole. Rows count from 0 in the object, and owners are 0."""

    layout: Layout
    keys: Keys  # of the documents, in order
    rejects: pa.Table  # schema.rejects_schema, in order
    counts: ScanCounts
    misfits: Mapping[str, str] = field(default_factory=dict)  # by column: the first value that its type does not hold, and where it is


def reasons_of(rejects: pa.Table) -> dict[str, int]:
    """How many of these rejects have each reason."""
    return dict(sorted(Counter(rejects["reason"].to_pylist()).items()))
