"""Rows of a source object as a format gives them, before they have the types of the run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.records import Reasons

Numbers = npt.NDArray[np.int64]
# A batch of a reading from front to back has at most so many rows, and so many bytes unless one row has more.
BATCH_ROWS = 16_384
BATCH_BYTES = 64 << 20


@dataclass(frozen=True)
class ArrowRows:
    """Rows that have types."""

    table: pa.Table
    microseconds: pa.Table  # the columns with INT96 timestamps once more, in microseconds

    def __len__(self) -> int:
        return int(self.table.num_rows)


@dataclass(frozen=True)
class JsonRows:
    """Rows that are JSON objects. A number that Python would change is a `Numeral`. See lax_json."""

    values: Sequence[dict[str, Any]]  # one a row, empty where the row has a reason
    reasons: Reasons  # why some rows are no objects
    lax: Sequence[int] = ()  # rows that may hold a `Replaced` text

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class TextRows:
    """Rows whose values are all text."""

    count: int
    columns: Mapping[str, Sequence[str | bytes | None]]  # count values each; bytes are no UTF-8; null where the row has a reason
    reasons: Reasons  # why some records are no rows

    def __len__(self) -> int:
        return self.count


Rows = ArrowRows | JsonRows | TextRows


def rows_of_a_batch(count: int, size: int) -> int:
    """How many of these rows, which have `size` bytes together, make a batch."""
    return max(1, min(BATCH_ROWS, count * BATCH_BYTES // max(1, size)))


def batches_with_rows(batches: Iterable[pa.RecordBatch], wanted: Numbers) -> Iterator[tuple[pa.RecordBatch, Numbers]]:
    """Each batch that holds some of the wanted rows, and which of its rows these are. It reads no further than to the last of them.

    `wanted`: ascending, counted from the first row of the first batch."""
    before = 0
    for batch in batches:
        first, last = np.searchsorted(wanted, [before, before + batch.num_rows])
        if first < last:
            yield batch, wanted[first:last] - before
        before += batch.num_rows
        if last == len(wanted):
            return


def take_rows(batch: pa.RecordBatch, numbers: Numbers) -> pa.RecordBatch:
    """These rows of a batch, at least one, ascending. It joins slices, since Arrow's `take` does not know string views."""
    starts = np.flatnonzero(np.diff(numbers, prepend=-2) != 1)
    runs = [batch.slice(int(run[0]), len(run)) for run in np.split(numbers, starts[1:])]
    return pa.concat_batches(runs) if len(runs) > 1 else runs[0]
