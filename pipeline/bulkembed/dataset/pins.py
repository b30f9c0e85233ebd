"""Pins: a reader's wish that gc leave a snapshot alone for a while. The pin of a reader that has crashed lapses by itself."""

from __future__ import annotations

import uuid
from typing import NamedTuple

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import read_record, write_record
from bulkembed.dataset.tombstones import require_live
from bulkembed.errors import SourceError, StorageError
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join


class Pin(NamedTuple):
    uri: str
    snapshot: int
    expires: float  # Unix seconds by the store's clock


def pin_snapshot(store: Store, output: str, snapshot: int, seconds: float) -> Pin:
    """Keeps the files of a snapshot for so many seconds. Raises SourceError where the snapshot has expired."""
    uri = join(paths.pins_folder(output), f"{uuid.uuid4().hex}.json")
    write_record(store, uri, {"snapshot": snapshot, "seconds": seconds})
    try:
        require_live(store, output, snapshot)
    except SourceError:
        store.delete(uri)
        raise
    return Pin(uri, snapshot, store.modified(uri) + seconds)


def pins(store: Store, output: str) -> list[Pin]:
    """All pins, also lapsed ones."""
    folder = paths.pins_folder(output)
    listed = [item for item in store.listed(folder) if item.relative_path.endswith(".json")]  # others are half-written
    found = (read_pin(store, join(folder, item.relative_path), item.modified) for item in listed)
    return [pin for pin in found if pin is not None]


def read_pin(store: Store, uri: str, written: float | None) -> Pin | None:
    """None where another gc has removed the pin."""
    if written is None:
        raise StorageError(f"{uri}: the store does not say when it was written, so that no pin can lapse there")
    try:
        snapshot, seconds = read_record(store, uri, lambda record: (int(record["snapshot"]), float(record["seconds"])))
    except FileNotFoundError:
        return None
    return Pin(uri, snapshot, written + seconds)
