"""A source object -> its layout: how many rows it has, and where it may be cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import pyarrow as pa

from bulkembed.errors import ObjectError, StorageError
from bulkembed.formats.first_bytes import KIND_BYTES, wrong_name
from bulkembed.formats.known import FORMATS
from bulkembed.formats.paths import with_paths
from bulkembed.scans import Layout
from bulkembed.source.objects import SourceObject
from bulkembed.storage.compression import codec_of
from bulkembed.storage.faults import CORRUPT, describe_error, is_refusal
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
    """What `read` returns.

    Raises ObjectError where the object is corrupt, of another format than its name says, or one that the store does not give out."""
    what = f"reading {item.uri}"
    try:
        return store.retrying(read, what)
    except StorageError as error:
        if error.__cause__ is None or not is_refusal(error.__cause__):
            raise
        raise ObjectError(f"{item.uri}: cannot be read: {str(error).removeprefix(f'{what}: ')}") from error
    except CORRUPT as error:
        cause = str(error) if isinstance(error, EOFError) else describe_error(error)
        reason = wrong_name_of(store, item) or f"{cause}; copy it again from where it comes from, or leave it out with --exclude"
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {reason}") from error


def wrong_name_of(store: Store, item: SourceObject) -> str | None:
    """What an object is that should be of a format which first bytes tell, and is not; None where they do not tell."""
    if not FORMATS[item.format].first_bytes or codec_of(item.uri)[1]:
        return None
    try:
        return wrong_name(store.read_start(item.uri, KIND_BYTES), item.format)
    except (FileNotFoundError, StorageError):
        return None
