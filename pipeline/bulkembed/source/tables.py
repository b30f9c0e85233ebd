"""A source that is one table -> its live files. Tables of formats that are not read are refused by name."""

from __future__ import annotations

import posixpath

from bulkembed.errors import SourceError
from bulkembed.source.delta import read_delta
from bulkembed.source.iceberg import METADATA, read_iceberg
from bulkembed.source.live_files import Table
from bulkembed.source.table_folders import kind_of_table, marked_folders
from bulkembed.storage.listing import Listing
from bulkembed.storage.store import Store

METADATA_SUFFIX = ".metadata.json"


def open_table(store: Store, source: str, listing: Listing) -> Table | None:
    """The table whose folder the source is, or whose metadata file (Iceberg); None where it is no table that is read.

    `listing`: of the source. A folder of which it shows nothing that a table has is not looked at.

    Raises SourceError where its live rows cannot be told, or the extra is missing; StorageError where the folder cannot be looked at."""
    if source.startswith(("http://", "https://")):
        return None  # an HTTP server may answer for every name
    folder, name = source, None
    if source.endswith(METADATA_SUFFIX) and posixpath.basename(posixpath.dirname(source)) == METADATA:
        folder, name = posixpath.dirname(posixpath.dirname(source)), posixpath.basename(source)
    elif listing.root.rstrip("/") not in marked_folders(listing):
        return None
    kind = kind_of_table(store, folder)
    try:
        if kind == "Delta" and name is None:
            return read_delta(store, folder)
        if kind == "Iceberg" or (kind and name):
            return read_iceberg(store, folder, name)
    except ImportError as error:
        raise SourceError(f"source {source}: a table in {kind} format is read with the extra: pip install 'bulkembed[tables]'") from error
    return None
