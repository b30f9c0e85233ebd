"""A source object -> its layout: how many rows it has, and where it may be cut."""

from __future__ import annotations

from collections.abc import Sequence

from bulkembed.errors import ObjectError
from bulkembed.formats.known import FORMATS
from bulkembed.scans import Layout
from bulkembed.source.objects import SourceObject
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store


def layout_of(store: Store, item: SourceObject, text_columns: Sequence[str] = ()) -> Layout:
    """Reads the footer, or counts the rows where the format has none. Raises ObjectError where the object is corrupt."""
    try:
        return store.retrying(lambda: FORMATS[item.format].layout(item.in_store(store), text_columns), f"reading {item.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {describe_error(error)}") from error
