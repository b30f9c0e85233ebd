"""Run keys: which snapshot a scheduler's run of this name has published."""

from __future__ import annotations

from bulkembed.dataset import paths
from bulkembed.dataset.json_records import read_record, record_bytes
from bulkembed.dataset.snapshots import Snapshot, View
from bulkembed.storage.store import Store


def mark_run_key(store: Store, output: str, snapshot: Snapshot) -> None:
    """Makes the run key of a snapshot known, if it has one. A trial is not what a scheduler asks for."""
    if snapshot.run_key is not None and not snapshot.limited:
        uri = paths.run_key_uri(output, snapshot.line, snapshot.run_key)
        store.create(uri, record_bytes({"snapshot": snapshot.number}))


def find_run_key(view: View, line: str, run_key: str) -> int | None:
    """Number of the snapshot that a run of this key has published, however old it is; None where none has."""
    try:
        return read_record(view.store, paths.run_key_uri(view.output, line, run_key), lambda record: int(record["snapshot"]))
    except FileNotFoundError:
        newest = view.newest_of_line(line, limited=False)  # its run may have died before it marked the key
        return newest.number if newest is not None and newest.run_key == run_key else None
