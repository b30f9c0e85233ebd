"""The snapshots of an output, how they are opened, and the switch between them: what people import for it by way of `api`."""

from __future__ import annotations

import pyarrow.dataset as pads

from bulkembed.config.run_config import MAX_DELETES
from bulkembed.dataset import arrow_dataset, heads
from bulkembed.dataset import snapshots as published
from bulkembed.dataset.pins import pin_snapshot
from bulkembed.dataset.snapshots import Snapshot, data_files, newest_dataset
from bulkembed.durations import seconds_of
from bulkembed.runs.guards import refuse_fewer
from bulkembed.runs.places import Place, Storage, located


def open_dataset(uri: Place, storage: Storage | None = None, pin: str | float | None = None, snapshot: int | None = None) -> pads.Dataset:
    """The live rows of the current snapshot, or of this one, as a pyarrow Dataset with the schema and the footer that were written.

    It goes on reading this snapshot when later runs publish others. `pin`: how long `gc` keeps its files, such as "2h", or seconds;
    without it, for the grace of `gc` after the snapshot has expired. Raises SourceError where there is no such snapshot."""
    store, output = located(uri, storage)
    number = newest_dataset(store, output, snapshot)[1].number
    if pin is not None:
        pin_snapshot(store, output, number, seconds_of(pin, "pin"))
    return arrow_dataset.open_dataset(store, output, number)


def files(uri: Place, storage: Storage | None = None, snapshot: int | None = None) -> list[str]:
    """URIs of the live data files of the current snapshot, or of this one. Raises SourceError where there is no such snapshot."""
    store, output = located(uri, storage)
    return data_files(store, output, newest_dataset(store, output, snapshot)[1])


def snapshots(uri: Place, storage: Storage | None = None) -> list[Snapshot]:
    """All snapshots that can be opened, of all lines, ascending by number."""
    return published.snapshots(*located(uri, storage))


def current(uri: Place, storage: Storage | None = None) -> Snapshot:
    """The snapshot that readers get. Raises SourceError where no run has finished yet."""
    return newest_dataset(*located(uri, storage))[1]


def publish(
    uri: Place, snapshot: int, storage: Storage | None = None, *, max_deletes: float = MAX_DELETES, allow_deletes: int | None = None
) -> Snapshot:
    """Makes the line of a snapshot current, and returns what is current now.

    It is a rollback where the snapshot is not the newest of its line. Raises SourceError where the snapshot does not exist, has
    expired, or is a trial of a line that has a whole dataset; StorageError where files of it are gone. Raises HeldBack where it has fewer
    documents than the current one, by more than `max_deletes` (a count, or below 1 a share) or, where that is given, `allow_deletes`."""
    store, output = located(uri, storage)
    refuse_fewer(published.current_snapshot(store, output), published.snapshot_of(store, output, snapshot), max_deletes, allow_deletes)
    return heads.publish(store, output, snapshot)


def rollback(uri: Place, to: int, storage: Storage | None = None) -> Snapshot:
    """Publishes a new snapshot with the files of an old one, makes its line current, and returns what is current now.

    Nothing is embedded. The next run of that line starts from it. Raises what `publish` raises."""
    return heads.rollback(*located(uri, storage), to)
