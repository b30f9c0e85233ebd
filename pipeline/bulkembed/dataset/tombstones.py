"""Tombstones: which snapshots have expired, and since when.

An expired snapshot cannot be opened any more. Its files stay for the grace of `gc`, and its tombstone for ever, so that no
number is used twice."""

from __future__ import annotations

from datetime import UTC, datetime

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import create_numbered, numbers_among
from bulkembed.errors import SourceError, StorageError
from bulkembed.storage.store import Store


def tombstones(store: Store, output: str) -> dict[int, float]:
    """When each snapshot expired, by its number: Unix seconds by the store's clock. One listing."""
    times: dict[int, float] = {}
    for item in store.listed(paths.tombstones_folder(output)):
        for number in numbers_among([item.relative_path], ".json"):  # others are doubts, or half-written
            if item.modified is None:
                raise StorageError(f"{item.uri}: the store does not say when it was written, so that nothing can expire there")
            times[number] = item.modified
    return times


def is_expired(store: Store, output: str, number: int) -> bool:
    """Whether a snapshot has a tombstone. One request."""
    return store.stands(paths.numbered_uri(paths.tombstones_folder(output), number))


def require_live(store: Store, output: str, number: int) -> None:
    """Raises SourceError where the snapshot has expired. A run calls it after it has written its lease, a reader after its pin."""
    if is_expired(store, output, number):
        raise SourceError(f"output {output}: snapshot {number} has expired, and gc frees its files; `bulkembed snapshots` lists the others")


def bury(store: Store, output: str, number: int, line: str, why: str) -> None:
    """Makes a snapshot expire now. The first tombstone of a number stays as it is."""
    record = {"number": number, "line": line, "created": datetime.now(UTC).isoformat(timespec="seconds"), "why": why}
    create_numbered(store, paths.tombstones_folder(output), number, record)
