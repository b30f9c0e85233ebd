"""A snapshot as a dataset of Arrow's."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from bulkembed.dataset.snapshots import data_files, newest_dataset
from bulkembed.errors import StorageError
from bulkembed.storage.arrow_files import arrow_filesystem
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store


def open_dataset(store: Store, output: str, number: int | None = None) -> pads.FileSystemDataset:
    """The live files of the current snapshot, or of this number. A later run does not change what this dataset reads.

    Its schema, with the footer as metadata, is that of the first file. Raises SourceError where there is no such snapshot."""
    _, snapshot = newest_dataset(store, output, number)
    uris = data_files(store, output, snapshot)
    filesystem, located = arrow_filesystem(store, uris)
    return pads.FileSystemDataset.from_paths(
        located, schema=schema_of(filesystem, located[0], uris[0]), format=pads.ParquetFileFormat(), filesystem=filesystem
    )


def schema_of(filesystem: pa.fs.FileSystem, located: str, uri: str) -> pa.Schema:
    """The schema of a data file. Raises StorageError where it cannot be read."""
    try:
        with filesystem.open_input_file(located) as file:
            return pq.read_schema(file)
    except CORRUPT as error:
        raise StorageError(f"{uri}: unreadable: {describe_error(error)}") from error
