"""A draft, with its files -> a snapshot, published onto the parent that it was planned from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.head_records import MAX_ATTEMPTS
from bulkembed.dataset.json_records import create_numbered
from bulkembed.dataset.manifests import DataFile, Rejected, SourceVersion
from bulkembed.dataset.run_keys import mark_run_key
from bulkembed.dataset.snapshots import Draft, Snapshot, View, identity_of, read_snapshot
from bulkembed.errors import BulkembedError, StorageError
from bulkembed.storage.store import Store


class ParentMoved(BulkembedError):
    """Another run has published onto this line since the draft was planned, or ids were erased. The difference must be taken again,
    from `newest`."""

    def __init__(self, newest: Snapshot | None) -> None:
        super().__init__(f"snapshot {newest.number if newest else 0} was published since this run was planned; run again")
        self.newest = newest


Guard = Callable[[Snapshot | None, Snapshot], None]


def publish_snapshot(
    store: Store,
    output: str,
    draft: Draft,
    files: Iterable[DataFile],
    sources: Iterable[SourceVersion],
    rejected: Iterable[Rejected],
    guard: Guard,
) -> Snapshot:
    """Writes the manifest, then the snapshot under the next free number. `files` come in the order of their names.

    Raises ParentMoved where the newest snapshot of the line, whole or limited as the draft is, is not the draft's parent. `guard` sees
    the parent and the snapshot that would follow it, and raises to prevent the publication."""
    view = View(store, output)
    require_parent(view, draft)
    candidate = write_manifest(store, output, draft, files, sources, rejected)
    for _ in range(MAX_ATTEMPTS):
        view = view.again()
        newest = require_parent(view, draft)
        if newest is not None:
            mark_run_key(store, output, newest)  # its own run may have died before it did
        following = replace(candidate, number=view.numbers.last + 1)
        guard(newest, following)
        if take_number(store, output, following):
            mark_run_key(store, output, following)
            return following
    raise StorageError(f"{output}: {MAX_ATTEMPTS} other runs took the next snapshot number first; run again")


def write_manifest(
    store: Store, output: str, draft: Draft, files: Iterable[DataFile], sources: Iterable[SourceVersion], rejected: Iterable[Rejected]
) -> Snapshot:
    """The snapshot of a draft, without a number yet, whose manifest is written."""
    token = manifests.new_token()
    n_files = documents = rows = objects = rejects = 0
    for file in in_order(manifests.write_parts(store, output, token, DataFile, files)):
        n_files, documents, rows = n_files + 1, documents + file.documents, rows + file.rows
    ids = []
    for source in manifests.write_parts(store, output, token, SourceVersion, sources):
        objects, rejects = objects + 1, rejects + source.rejects
        ids.append(source.object_id)
    rejects += sum(content.rows for content in manifests.write_parts(store, output, token, Rejected, rejected))
    return Snapshot(
        **vars(draft),
        number=0,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        source_identity=identity_of(ids),
        objects=objects,
        files=n_files,
        documents=documents,
        rows=rows,
        rejects=rejects,
        manifest=token,
    )


def in_order(files: Iterable[DataFile]) -> Iterator[DataFile]:
    """The files again. Raises ValueError where a name does not come after the one before it, so that none is listed twice."""
    last = ""
    for file in files:
        if file.name <= last:
            raise ValueError(f"data file {file.name} comes after {last}")
        last = file.name
        yield file


def require_parent(view: View, draft: Draft) -> Snapshot | None:
    """The parent of a draft. Raises ParentMoved where it is not the newest snapshot of its line any more."""
    newest = view.newest_of_line(draft.line, draft.limited)
    if (newest.number if newest else 0) != draft.parent:
        raise ParentMoved(newest)
    return newest


def take_number(store: Store, output: str, snapshot: Snapshot) -> bool:
    """Publishes a snapshot. False where another run took the number first."""
    folder = paths.snapshots_folder(output)
    if create_numbered(store, folder, snapshot.number, snapshot.to_dict()):
        return True
    # A fault may have hidden that this run itself has written it. No other snapshot has its manifest.
    return read_snapshot(store, output, snapshot.number).manifest == snapshot.manifest
