"""Which rows of a data file documents have. A document is one row, or in chunk mode several rows that follow each other. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import schema

Rows = npt.NDArray[np.int64]
CHUNK_INDEX = schema.CHUNKS[0].name


def document_starts(table: pa.Table) -> Rows:
    """The first row of each document. Raises ValueError where the table begins within one."""
    if CHUNK_INDEX not in table.column_names:
        return np.arange(table.num_rows)
    starts = np.flatnonzero(table[CHUNK_INDEX].to_numpy() == 0)
    if table.num_rows and (not len(starts) or starts[0]):
        raise ValueError("its first chunk is no first chunk of a document")
    return starts


def whole_documents(groups: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows, cut only where a document begins: no document stands in two tables."""
    held: pa.Table | None = None  # its last document may go on in the next group
    for group in groups:
        if CHUNK_INDEX not in group.column_names:
            yield group
            continue
        if held is None:
            held = group
            continue
        starts = document_starts(held)
        last = int(starts[-1]) if len(starts) else 0
        if last:
            yield held.slice(0, last)
        held = pa.concat_tables([held.slice(last), group])
    if held is not None:
        yield held


def rows_of_documents(starts: Rows, rows: int, wanted: Rows) -> tuple[Rows, Rows]:
    """The rows of the wanted documents, and for each row the index of its document in `wanted`.

    `starts`: first rows of all documents of a table of `rows` rows. `wanted`: first rows. Raises ValueError where one is none."""
    at = np.searchsorted(starts, wanted)
    found = starts[np.minimum(at, len(starts) - 1)] if len(starts) else np.full(len(wanted), -1)
    if (found != wanted).any():
        raise ValueError(f"no document begins at row {wanted[found != wanted][0]}")
    lengths = np.diff(starts, append=rows)[at]
    owners = np.repeat(np.arange(len(wanted)), lengths)
    within = np.arange(len(owners)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    return wanted[owners] + within, owners
