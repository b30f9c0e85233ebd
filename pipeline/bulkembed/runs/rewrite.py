"""A data file and its edits -> a new data file under a new name.

The old file stays as it is, since older snapshots list it. Its bits of vectors are carried: no model is needed. A file of another line
gives rows too where its stored forms allow that (see config/recipe.forms_from)."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b, sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import row_keys, schema
from bulkembed.dataset import paths
from bulkembed.dataset.parquet_file import footer_of, identical, stream_bytes
from bulkembed.dataset.row_groups import open_data_file
from bulkembed.errors import StorageError
from bulkembed.records import Counts, Receipt
from bulkembed.runs.edited_rows import CHUNK_INDEX, Rows, document_starts, rows_of_documents, whole_documents
from bulkembed.runs.job import Job
from bulkembed.runs.stages import timed
from bulkembed.runs.stored_columns import StoredColumns, stored_columns
from bulkembed.shards import FileName
from bulkembed.source.documents import storage_values
from bulkembed.storage.faults import CORRUPT
from bulkembed.storage.retry import retries_taken
from bulkembed.storage.store import Store

NOT_PLANNED = "it is not the file that was planned with; run again to plan it anew"


@dataclass(frozen=True, eq=False)
class FileEdit:
    """What becomes of one data file. A document is named by its first row."""

    fingerprint: str  # the folder of the old file, maybe of another line
    name: str  # of the old file
    live: Rows | None  # sorted: the documents that stay; None: all
    slots: Rows  # (m,): the documents of the old file whose vectors m new documents get
    values: pa.Table  # (m): their ids and kept columns
    parent: int  # the snapshot that the edit was planned from

    @property
    def new_name(self) -> FileName:
        """Equal edits of equal files have equal names, so that a repeated attempt finds its own file."""
        digest = blake2b(f"{self.fingerprint}/{self.name}\n".encode(), digest_size=8)
        digest.update(b"all" if self.live is None else f"{len(self.live)}\n".encode() + self.live.astype("<i8").tobytes())
        digest.update(self.slots.astype("<i8").tobytes())
        digest.update(row_keys.row_hashes(self.values).tobytes())
        return FileName(FileName.parse(self.name).stem, "w", self.parent, digest.hexdigest())

    @property
    def is_empty(self) -> bool:
        """Whether nothing is left of the file, and nothing is added."""
        return self.live is not None and not len(self.live) and not len(self.slots)


class Tally:
    """What the rows that pass through it come to."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.ids: list[pa.ChunkedArray] = []

    def add(self, rows: pa.Table, int8_counts: Counts) -> None:
        n_tokens, truncated = rows["n_tokens"].to_numpy(), rows["truncated"].to_numpy()
        counts = Counts(vectors=rows.num_rows, tokens=int(n_tokens.sum(dtype=np.int64)), truncated=int(np.count_nonzero(truncated)))
        indices = rows[CHUNK_INDEX].to_numpy() if CHUNK_INDEX in rows.column_names else np.zeros(rows.num_rows, np.int32)
        documents = int(np.count_nonzero(indices == 0))
        chunked = int(np.count_nonzero(indices == 1))
        self.counts += counts + int8_counts + Counts(rows=documents, documents=documents, chunked=chunked)
        self.ids.append(storage_values(rows["id"].filter(pa.array(indices == 0))))

    def total(self) -> Counts:
        """All counts. The old receipt alone knows the tokens that were cut off, and the clipped components of carried vectors."""
        ids = [chunk for column in self.ids for chunk in column.chunks]
        repeated = self.counts.documents - len(pa.chunked_array(ids).unique()) if ids else 0
        return self.counts + Counts(repeated_ids=repeated, retries=retries_taken())


def rewrite(edit: FileEdit, job: Job) -> Receipt | None:
    """Writes the new file and its receipt, which is returned; None where no row is left, and nothing is written.

    Adds stand in the order of their slots, behind the kept rows of the same row group of the old file. The receipt counts the rows of
    the new file; the rejects stay with the file that was embedded. Raises StorageError where the old file is missing, damaged, or has
    not the documents that the edit names."""
    require_consistent(edit, job)
    if edit.is_empty:
        return None
    started, seconds, tally = time.time(), dict[str, float](), Tally()
    with timed(seconds, "rewrite"):
        file = open_data_file(job.store, paths.data_uri(job.cfg.output, edit.fingerprint, edit.name))
        columns = stored_columns(file.arrow, file.uri, edit.fingerprint, job)
        footer = job.provenance | {"engine": footer_of(file.arrow).get("engine", "")}
        data = stream_bytes(edited(whole_documents(file.groups()), edit, columns, tally), columns.out, footer)
    if not tally.counts.documents:
        return None
    with timed(seconds, "write"):
        data = create(job.store, job.ledger.data_uri(str(edit.new_name)), data)
    footer = footer_of(pq.read_schema(pa.BufferReader(data)))
    receipt = Receipt(
        shard=str(edit.new_name),
        source=file.uri,
        counts=tally.total(),
        data_bytes=len(data),
        data_sha256=sha256(data).hexdigest(),
        seconds={name: round(spent, 6) for name, spent in seconds.items()},
        embed_started=started,
        embed_finished=time.time(),
        provenance={name: footer[name] for name in (*job.short_provenance, "engine")},
        derived_from=edit.name,
    )
    job.ledger.write_receipt(receipt)
    return receipt


def require_consistent(edit: FileEdit, job: Job) -> None:
    """Raises ValueError where the edit contradicts itself or the job: a fault of the caller."""
    if edit.live is not None and (np.diff(edit.live) <= 0).any():
        raise ValueError(f"{edit.name}: live rows are not ascending")
    if len(edit.slots) != edit.values.num_rows:
        raise ValueError(f"{edit.name}: {len(edit.slots)} slots for {edit.values.num_rows} documents")
    if not edit.values.schema.equals(job.carried):
        raise ValueError(f"{edit.name}: values are {edit.values.schema}, and the run's columns {job.carried}")
    if edit.fingerprint != job.fingerprint and (edit.live is None or len(edit.live)):
        raise ValueError(f"{edit.name}: is a file of another line, of which no row can stay as it is")


def edited(tables: Iterable[pa.Table], edit: FileEdit, columns: StoredColumns, tally: Tally) -> Iterator[pa.Table]:
    """The rows of the new file, for each table of whole documents its kept rows and its adds. Counts them in `tally`."""
    order = np.argsort(edit.slots, kind="stable")
    first = kept = added = 0
    for table in tables:
        rows = table.num_rows
        live = None if edit.live is None else within(edit.live, first, rows)
        adds = order[slice(*np.searchsorted(edit.slots, [first, first + rows], sorter=order))]
        try:
            parts = [kept_rows(table, live, columns)] if live is None or len(live) else []
            parts += [added_rows(table, edit.slots[adds] - first, edit.values.take(pa.array(adds)), columns)] if len(adds) else []
        except ValueError as error:
            raise StorageError(f"{columns.uri}: from row {first} on: {error}; {NOT_PLANNED}") from error
        for part, int8_counts in parts:
            tally.add(part, int8_counts)
            yield part
        first, kept, added = first + rows, kept + (0 if live is None else len(live)), added + len(adds)
    if added < len(edit.slots) or (edit.live is not None and kept < len(edit.live)):
        raise StorageError(f"{columns.uri}: has {first} rows, and lacks some that are named; {NOT_PLANNED}")


def within(sorted_rows: Rows, first: int, rows: int) -> Rows:
    """Those of `sorted_rows` that are among `rows` rows from `first` on, counted from there."""
    return sorted_rows[slice(*np.searchsorted(sorted_rows, [first, first + rows]))] - first


def kept_rows(table: pa.Table, live: Rows | None, columns: StoredColumns) -> tuple[pa.Table, Counts]:
    """The rows of the documents that stay, with their own values."""
    starts = document_starts(table)
    if live is not None and not np.array_equal(live, starts):
        table = table.take(pa.array(rows_of_documents(starts, table.num_rows, live)[0]))
    return columns.table(table, None)


def added_rows(table: pa.Table, slots: Rows, values: pa.Table, columns: StoredColumns) -> tuple[pa.Table, Counts]:
    """The rows of the documents at `slots`, with other values."""
    rows, owners = rows_of_documents(document_starts(table), table.num_rows, slots)
    return columns.table(table.take(pa.array(rows)), values.take(pa.array(owners)))


def create(store: Store, uri: str, data: bytes) -> bytes:
    """Creates a data file, and returns the bytes that are published: those of an earlier attempt with the same rows stay.

    A file that is broken is replaced. Raises StorageError where a whole one stands there with other rows."""
    if store.create(uri, data):
        return data
    standing = store.read(uri)
    if identical(standing, data):
        return standing
    if is_whole(standing):
        raise StorageError(f"{uri}: another file stands there, with other rows; remove it and run again")
    store.put(uri, data)
    return data


def is_whole(data: bytes) -> bool:
    try:
        schema.table_of(data)
    except CORRUPT:
        return False
    return True
