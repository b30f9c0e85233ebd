"""The time by the store's clock. Ages of objects are measured with it: the clocks of hosts may differ by minutes."""

from __future__ import annotations

import uuid

from bulkembed.dataset import paths
from bulkembed.storage.store import Store


def store_time(store: Store, output: str) -> float:
    """Unix seconds. The store gives an object the time when it is written: one is written, looked at and removed.

    Raises StorageError where the store says no times."""
    uri = paths.clock_uri(output, uuid.uuid4().hex)
    store.put(uri, b"?")  # some file systems list an empty object as the marker of a folder
    try:
        return store.modified(uri)
    finally:
        store.delete(uri)
