"""Outputs whose snapshots are written without a run: files of a few bytes, with receipts, keys and manifests."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.heads import refresh_head
from bulkembed.dataset.manifests import DataFile, SourceVersion
from bulkembed.dataset.publishing import publish_snapshot
from bulkembed.dataset.snapshots import Draft, Snapshot, newest_of_line, snapshot_files
from bulkembed.storage.store import Store

DATA = b"x" * 1000


@dataclass(frozen=True)
class Output:
    """An output to publish to. A fingerprint is the name of its line."""

    store: Store
    at: str

    def write_file(self, line: str, name: str) -> None:
        """A data file as a run leaves it before it publishes."""
        self.store.put(paths.data_uri(self.at, line, name), DATA)
        self.store.put(paths.receipt_uri(self.at, line, name), b"{}")

    def write_keys(self, line: str, object_id: str) -> None:
        self.store.put(paths.keys_uri(self.at, line, object_id), b"keys")
        self.store.put(paths.rejects_uri(self.at, line, object_id), b"rejects")

    def publish(self, line: str, names: Sequence[str], ids: Iterable[str] = (), limit: int | None = None) -> Snapshot:
        """A snapshot of these files on top of the newest of its line."""
        ids = list(ids)
        for name in names:
            self.write_file(line, name)
        for object_id in ids:
            self.write_keys(line, object_id)
        newest = newest_of_line(self.store, self.at, line, limit is not None)
        draft = Draft(
            parent=newest.number if newest else 0, line=line, fingerprint=line, sources=["in"], limit=limit, run_key=None, provenance={}
        )
        files = [DataFile(name, 1, 1, 1, len(DATA), "", b"") for name in sorted(names)]
        sources = [SourceVersion(object_id, object_id, 1, 0) for object_id in ids]
        snapshot = publish_snapshot(self.store, self.at, draft, files, sources, [], lambda parent, following: None)
        refresh_head(self.store, self.at)
        return snapshot

    def missing(self, snapshot: Snapshot) -> list[str]:
        """What a snapshot needs and is not there."""
        names = snapshot_files(self.store, self.at, snapshot)
        wanted = [make(self.at, snapshot.fingerprint, name) for name in names for make in (paths.data_uri, paths.receipt_uri)]
        ids = manifests.read_source_ids(self.store, self.at, snapshot.manifest)
        wanted += [paths.keys_uri(self.at, snapshot.line, object_id) for object_id in ids]
        return [uri for uri in wanted if not self.store.stands(uri)]

    def names(self) -> set[str]:
        """All objects below the output."""
        return {item.relative_path for item in self.store.listed(self.at)}

    def data(self, line: str) -> set[str]:
        """Names of the data files of a line."""
        return {name.removesuffix(".parquet") for name in self.store.names(paths.data_folder(self.at, line))}
