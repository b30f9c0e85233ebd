"""Why documents of a snapshot are rejects, by the hash of their id."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.dataset import manifests, paths
from bulkembed.dataset.changes import starting_with
from bulkembed.dataset.data_rows import read_columns
from bulkembed.dataset.key_files import read_keys
from bulkembed.dataset.manifests import SourceVersion
from bulkembed.dataset.read_ahead import read_ahead
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import StorageError
from bulkembed.row_keys import HASH_BYTES, Hashes, Keys, binary_of, from_digests, id_hashes, no_hashes
from bulkembed.storage.store import Store

DELETED = "deleted"
MAX_OBJECTS_AHEAD = 8  # threads that wait for the store


@dataclass(frozen=True)
class RejectReasons:
    """The reasons of rejected documents. An id that was rejected more than once has the reason of one of its documents."""

    ids: pa.Array  # hashes, fixed_size_binary(16)
    reasons: pa.Array = field(repr=False)

    def of(self, ids: pa.ChunkedArray) -> pa.Array:
        """`rejected:<reason>` of each id that is among the rejects, else `deleted`."""
        found = pc.index_in(binary_of(id_hashes(ids)), value_set=self.ids)
        texts = pc.binary_join_element_wise("rejected:", self.reasons.take(found), "")
        return pc.fill_null(texts, DELETED)


def reject_reasons(store: Store, output: str, old: Snapshot, new: Snapshot) -> RejectReasons:
    """The rejects of the object versions that `new` was made from and `old` was not.

    A scan's rejects are listed by id. Those of later stages are remembered by content: the keys of the objects tell their ids."""
    before = {version.object_id for version in manifests.read_sources(store, output, old.manifest)}
    versions = [version for version in manifests.read_sources(store, output, new.manifest) if version.object_id not in before]
    parts = [*scan_rejects(store, output, new.line, versions), *content_rejects(store, output, new, versions)]
    ids = np.concatenate([no_hashes(), *(ids for ids, _ in parts)])
    return RejectReasons(binary_of(ids), pa.chunked_array([reasons for _, reasons in parts], pa.string()).combine_chunks())


def scan_rejects(store: Store, output: str, line: str, versions: Iterable[SourceVersion]) -> Iterator[tuple[Hashes, pa.Array]]:
    """Hashes of ids and reasons, by object version."""

    def read(version: SourceVersion) -> tuple[Hashes, pa.Array]:
        uri = paths.rejects_uri(output, line, version.object_id)
        table = read_columns(store, uri, ["id", "reason"])
        table = table.filter(table["id"].is_valid())
        return id_hashes(table["id"]), table["reason"].combine_chunks()

    return read_ahead(read, (version for version in versions if version.rejects), MAX_OBJECTS_AHEAD)


def content_rejects(store: Store, output: str, new: Snapshot, versions: Iterable[SourceVersion]) -> Iterator[tuple[Hashes, pa.Array]]:
    """The same of documents whose content is remembered as a reject."""
    rejected = {item.content_hash: item.reason for item in manifests.read_rejected(store, output, new.manifest)}
    if not rejected:
        return iter(())
    contents, reasons = pa.array(rejected.keys(), pa.binary(HASH_BYTES)), pa.array(rejected.values(), pa.string())
    words = np.sort(from_digests(list(rejected.keys()))[:, 0])

    def read(version: SourceVersion) -> tuple[Hashes, pa.Array]:
        keys = keys_of_version(store, output, new.line, version.object_id)
        keys = keys.take(starting_with(words, keys.contents))
        found = pc.index_in(binary_of(keys.contents), value_set=contents)
        known = found.is_valid()
        return keys.ids[known.to_numpy(zero_copy_only=False)], reasons.take(found.filter(known))

    return read_ahead(read, versions, MAX_OBJECTS_AHEAD)


def keys_of_version(store: Store, output: str, line: str, object_id: str) -> Keys:
    try:
        return read_keys(store, output, line, [object_id])
    except FileNotFoundError:
        raise StorageError(f"{paths.keys_uri(output, line, object_id)}: missing; the next run scans this object again") from None
