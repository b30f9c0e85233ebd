"""What a format is: its names, and the three ways in which a source object is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain

import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.formats.rows import Rows
from bulkembed.scans import Layout
from bulkembed.shards import FormatName, Part
from bulkembed.storage.store import Store


@dataclass(frozen=True)
class ObjectVersion:
    """One version of one source object."""

    store: Store
    uri: str
    version: str
    path: str  # below the source


@dataclass(frozen=True)
class Reading:
    """One reading of an open object from front to back."""

    schema: pa.Schema | None  # of all columns; None where every row has columns of its own, and where there is no row
    batches: Iterator[Rows]  # of at most rows.BATCH_ROWS rows
    layout: Callable[[], Layout]  # once all batches are read


@dataclass(frozen=True)
class Format:
    """How files of one format are read.

    Each function may raise what is in `retry.CORRUPT` for a damaged file, and ObjectError for one that is of another format."""

    name: FormatName
    suffixes: tuple[str, ...]
    first_bytes: tuple[bytes, ...]  # how its files begin; empty where that does not tell the format
    # The layout by as little reading as possible. Arguments: the object, and the text columns, whose sizes count.
    layout: Callable[[ObjectVersion, Sequence[str]], Layout]
    # An open object. Arguments: the object, the columns to read, the text columns.
    reading: Callable[[ObjectVersion, Sequence[str], Sequence[str]], AbstractContextManager[Reading]]
    # The rows of a part. Arguments: the part, the columns to read, and about how many bytes of text a row has (0: unknown).
    rows: Callable[[Store, Part, Sequence[str], float], Rows]


# What to do without a column of the name that a run takes by default.
OTHER_NAMES = {
    "id": "; --id-column names another one, and `--id-column row` makes ids of object and row number",
    "text": "; --text-column names another one",
}


def reading_of(schema: pa.Schema | None, batches: Iterator[Rows], layout: Callable[[], Layout]) -> Reading:
    """A reading that knows its columns once there is a row."""
    first = next(batches, None)
    return Reading(None, iter(()), layout) if first is None else Reading(schema, chain([first], batches), layout)


def no_column(where: str, name: str, present: Sequence[str]) -> str:
    return f"{where}: no column {name!r}; its columns are {', '.join(present) or 'none'}{OTHER_NAMES.get(name, '')}"


def require_names(present: Sequence[str], names: Sequence[str], where: str) -> None:
    """Raises ObjectError for a column that is missing, or there twice. It lists the columns that are present."""
    for name in names:
        if name not in present:
            raise ObjectError(no_column(where, name, present))
        if present.count(name) > 1:
            raise ObjectError(f"{where}: has {present.count(name)} columns named {name!r}")


def present_names(present: Sequence[str], names: Sequence[str], where: str) -> list[str]:
    """Those of these columns that an object has. Raises ObjectError for one that is there twice."""
    found = [name for name in names if name in present]
    require_names(present, found, where)
    return found
