"""A snapshot as a dataset of Arrow's."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset.parquet_file import PREFIX, output_schema, schema_as_read
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot, data_files, newest_dataset
from bulkembed.dataset.vector_columns import forms_of
from bulkembed.errors import StorageError
from bulkembed.storage.arrow_files import arrow_filesystem
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store


def open_dataset(store: Store, output: str, number: int | None = None) -> pads.FileSystemDataset:
    """The live files of the current snapshot, or of this number. A later run does not change what this dataset reads.

    Its schema, with the footer as metadata, is that of the first file. Raises SourceError where there is no such snapshot."""
    ledger, snapshot = newest_dataset(store, output, number)
    uris = data_files(store, output, snapshot)
    filesystem, located = arrow_filesystem(store, uris or [output])
    known = schema_of(filesystem, located[0], uris[0]) if uris else schema_without_files(ledger, snapshot)
    return pads.FileSystemDataset.from_paths(located[: len(uris)], schema=known, format=pads.ParquetFileFormat(), filesystem=filesystem)


def schema_without_files(ledger: Ledger, snapshot: Snapshot) -> pa.Schema:
    """The schema of a snapshot without documents, by the record of its run. Raises StorageError where that is gone."""
    carried = ledger.read_carried_schema()
    if carried is None:
        raise StorageError(f"{ledger.output}: the record of run {ledger.fingerprint} is gone, so the columns are unknown; run again")
    chunks = schema.CHUNKS if snapshot.provenance.get("long_documents") == "chunk" else ()
    forms = tuple(forms_of(snapshot.provenance).values())
    columns = schema_as_read(output_schema(pa.schema([*carried, *chunks, *schema.TAIL]), forms))
    return columns.with_metadata({f"{PREFIX}{key}": value for key, value in snapshot.provenance.items()})


def schema_of(filesystem: pa.fs.FileSystem, located: str, uri: str) -> pa.Schema:
    """The schema of a data file. Raises StorageError where it cannot be read."""
    try:
        with filesystem.open_input_file(located) as file:
            return pq.read_schema(file)
    except CORRUPT as error:
        raise StorageError(f"{uri}: unreadable: {describe_error(error)}") from error
