"""Data files that hold documents of erased ids, and the same files without them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from bulkembed import stopping
from bulkembed.dataset import file_keys, paths
from bulkembed.dataset.erasures import are_in
from bulkembed.dataset.manifests import DataFile
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import StorageError
from bulkembed.records import Model
from bulkembed.row_keys import Hashes
from bulkembed.runs.job import Job
from bulkembed.runs.mapper import LocalMapper
from bulkembed.runs.recall import recall_job
from bulkembed.runs.rewrite import FileEdit, rewrite
from bulkembed.storage.store import Store

THREADS = 8  # that wait for the store
Rows = npt.NDArray[np.int64]
Place = tuple[str, str]  # fingerprint and name of a data file


@dataclass(frozen=True, eq=False)
class Holder:
    """A data file that holds documents of erased ids."""

    ids: Hashes  # (k, 2): of these documents
    live: Rows  # ascending: first rows of the documents that stay
    contents: bytes  # of those that stay, see DataFile.contents


Seen = dict[Place, Holder | None]  # None: a file that holds no erased id


def look_at(store: Store, output: str, fingerprint: str, names: Iterable[str], erased: Hashes, seen: Seen) -> None:
    """Reads the ids of those files that were not seen before."""
    new = [name for name in names if (fingerprint, name) not in seen]
    for name, holder in zip(new, LocalMapper(THREADS).map(partial(holder_of, store, output, fingerprint, erased), new), strict=True):
        stopping.stop.check()
        seen[fingerprint, name] = holder


def holder_of(store: Store, output: str, fingerprint: str, erased: Hashes, name: str) -> Holder | None:
    uri = paths.data_uri(output, fingerprint, name)
    try:
        keys = file_keys.keys_of_file(store, uri, []).keys
    except FileNotFoundError:
        raise StorageError(f"{uri}: is missing; run the job again, which makes its rows anew, then erase") from None
    hit = are_in(keys.ids, erased)
    return Holder(keys.ids[hit], keys.rows[~hit], file_keys.content_prefixes(keys.contents[~hit])) if hit.any() else None


def without(store: Store, output: str, snapshot: Snapshot, files: Iterable[DataFile], holders: Mapping[str, Holder]) -> list[DataFile]:
    """The files of a snapshot in the order of their names, of which the holders are rewritten without documents of erased ids."""
    files = list(files)
    job = job_of(store, output, snapshot)
    hit = [file.name for file in files if file.name in holders]
    written = LocalMapper(THREADS).map(lambda name: rewritten(job, snapshot, name, holders[name]), hit)
    kept = [file for file in files if file.name not in holders]
    return sorted([*kept, *(file for file in written if file is not None)], key=lambda file: file.name)


def rewritten(job: Job, snapshot: Snapshot, name: str, holder: Holder) -> DataFile | None:
    """None where no document is left."""
    stopping.stop.check()
    edit = FileEdit(snapshot.fingerprint, name, holder.live, np.empty(0, np.int64), job.carried.empty_table(), snapshot.number)
    receipt = rewrite(edit, job)
    if receipt is None:
        return None
    counts = receipt.counts
    return DataFile(
        receipt.shard, counts.vectors, counts.documents, counts.tokens, receipt.data_bytes, receipt.data_sha256, holder.contents
    )


def job_of(store: Store, output: str, snapshot: Snapshot) -> Job:
    """The job that made a snapshot, as far as files are rewritten without its model. Raises SourceError where another version made it."""
    job = recall_job(store, output, tuple(snapshot.sources), snapshot, model_of(snapshot.provenance))
    if job.provenance != snapshot.provenance:
        raise StorageError(f"output {output}: snapshot {snapshot.number} does not say what its vectors were made with")
    return job


def model_of(provenance: Mapping[str, str]) -> Model:
    """What the provenance says of the model. The model is not loaded, so that its other sizes are left at 0."""
    hashes = {name.removeprefix("sha256."): text for name, text in provenance.items() if name.startswith("sha256.")}
    return Model(
        name=provenance["model"],
        revision=provenance["revision"] or None,
        digest=provenance["model_digest"],
        width=0,
        default_dim=0,
        max_tokens=0,
        cache_values=0,
        pooling="mean",
        prompts=(),
        document_prompt="",
        query_prompt="",
        min_trained_dim=None,
        trained_dims=(),
        native_dtype="",
        end_token=None,
        file_hashes=tuple(hashes.items()),
    )
