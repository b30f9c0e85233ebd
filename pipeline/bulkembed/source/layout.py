"""A source object -> its layout: how many rows it has, and where it may be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.formats.known import FORMATS
from bulkembed.formats.paths import with_paths
from bulkembed.scans import Layout
from bulkembed.source.objects import SourceObject
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store

T = TypeVar("T")


def table_columns(store: Store, item: SourceObject, names: Sequence[str]) -> pa.Schema | None:
    """The columns of an object whose format has types, those of `names` within others too; None where it has no rows.

    It reads no more than the first rows. Raises ObjectError where the object is corrupt."""

    def read() -> pa.Schema | None:
        known, place = FORMATS[item.format], item.in_store(store)
        if item.format == "parquet":
            layout = known.layout(place, ())
            return with_paths(layout.schema, names) if layout.schema is not None and layout.rows else None
        with known.reading(place, names, ()) as reading:
            return None if reading.schema is None else with_paths(reading.schema, names)

    return undamaged(store, item, read)


def layout_of(store: Store, item: SourceObject, text_columns: Sequence[str] = ()) -> Layout:
    """Reads the footer, or counts the rows where the format has none. Raises ObjectError where the object is corrupt."""
    return undamaged(store, item, lambda: FORMATS[item.format].layout(item.in_store(store), text_columns))


def undamaged(store: Store, item: SourceObject, read: Callable[[], T]) -> T:
    """What `read` returns. Raises ObjectError where the object is corrupt."""
    try:
        return store.retrying(read, f"reading {item.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {describe_error(error)}") from error
