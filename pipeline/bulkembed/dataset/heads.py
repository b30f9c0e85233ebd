"""Moves the head: a first snapshot does, and the commands publish and rollback. A run on the head's own line need not.

Every function ends with current.txt, which follows the head."""

from __future__ import annotations

from dataclasses import fields

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.current_txt import lists_current, write_current
from bulkembed.dataset.head_records import create_head, move_head
from bulkembed.dataset.publishing import ParentMoved, publish_snapshot
from bulkembed.dataset.snapshots import Draft, Snapshot, View, newest_of_line, snapshot_files, snapshot_of
from bulkembed.errors import SourceError, StorageError
from bulkembed.storage.store import Store

MAX_ATTEMPTS = 100


def refresh_head(store: Store, output: str) -> Snapshot | None:
    """Writes the head where there is none yet, then current.txt. Returns the current snapshot.

    A run calls it last, and first as `keep_head`: one before it may have died between. The first head is of the line of the first
    snapshot, whoever writes it."""
    view = View(store, output)
    if view.numbers.taken and view.head is None:
        first = view.snapshot(view.numbers.taken[0])
        create_head(store, output, 1, first.line, first.limit, "the first snapshot")
        view = view.again()
    return write_current(view)


def keep_head(view: View) -> Snapshot | None:
    """As `refresh_head`, where the output was looked at before.

    An old view can only confirm what stands there: whoever has published since then writes head and list too."""
    if view.current is None and not view.numbers.taken:
        return None
    return view.current if view.head is not None and lists_current(view) else refresh_head(view.store, view.output)


def publish(store: Store, output: str, number: int) -> Snapshot:
    """Makes the line of a snapshot current. A snapshot that is not the newest of its line is rolled back to.

    Returns the snapshot that is current now."""
    wanted = snapshot_of(store, output, number)
    newest = newest_of_line(store, output, wanted.line, wanted.limited)
    if newest is None or newest.number != number:
        return rollback(store, output, number)
    require_whole(store, output, wanted)
    move_head(store, output, wanted.line, wanted.limit, f"publish of snapshot {number}")
    write_current(View(store, output))
    return wanted


def rollback(store: Store, output: str, number: int) -> Snapshot:
    """Publishes a new snapshot with the files of an old one, and makes its line current.

    Returns the snapshot that is current now: the old one itself, where it is the newest of its line."""
    wanted = snapshot_of(store, output, number)
    require_whole(store, output, wanted)
    newest = newest_of_line(store, output, wanted.line, wanted.limited)
    if newest is not None and newest.number != number:
        wanted = publish_again(store, output, wanted, newest)
    move_head(store, output, wanted.line, wanted.limit, f"rollback to snapshot {number}")
    write_current(View(store, output))
    return wanted


def publish_again(store: Store, output: str, wanted: Snapshot, newest: Snapshot) -> Snapshot:
    """A new snapshot with the manifest of an old one."""
    token = wanted.manifest
    for _ in range(MAX_ATTEMPTS):
        values = {item.name: getattr(wanted, item.name) for item in fields(Draft)}
        draft = Draft(**values | {"parent": newest.number, "run_key": None})
        files = manifests.read_files(store, output, token)
        sources, rejected = manifests.read_sources(store, output, token), manifests.read_rejected(store, output, token)
        try:
            return publish_snapshot(store, output, draft, files, sources, rejected, lambda parent, following: None)
        except ParentMoved as moved:
            newest = moved.newest or newest
    raise StorageError(f"{output}: {MAX_ATTEMPTS} runs published onto this line first; try again")


def require_whole(store: Store, output: str, wanted: Snapshot) -> None:
    """Raises SourceError where the snapshot is a trial of a line that has a whole dataset, StorageError where files are gone."""
    if wanted.limited and newest_of_line(store, output, wanted.line, limited=False) is not None:
        raise SourceError(
            f"output {output}: snapshot {wanted.number} is a trial (--limit {wanted.limit}) of a line that has a whole dataset, "
            "and cannot take its place"
        )
    there = set(store.names(paths.data_folder(output, wanted.fingerprint)))
    gone = [name for name in snapshot_files(store, output, wanted) if f"{name}.parquet" not in there]
    if gone:
        raise StorageError(f"output {output}: snapshot {wanted.number} lists {len(gone)} files that are gone, such as {gone[0]}.parquet")
