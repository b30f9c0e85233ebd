"""Rows of a source object as a format gives them, before they have the types of the run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkembed.records import Reasons

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
    """Rows that are JSON objects. A number that Python would change is a `Numeral`."""

    values: Sequence[dict[str, Any]]  # one a row, empty where the row has a reason
    reasons: Reasons  # why some rows are no objects

    def __len__(self) -> int:
        return len(self.values)


Rows = ArrowRows | JsonRows
