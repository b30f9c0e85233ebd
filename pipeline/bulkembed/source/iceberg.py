"""An Iceberg table -> its live files. pyiceberg reads the metadata, through the store; no catalog is asked."""

from __future__ import annotations

import io
import posixpath
import re
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from bulkembed import schema
from bulkembed.errors import BulkembedError
from bulkembed.source.live_files import Rows, Table, TableColumns, UnreadableTable
from bulkembed.storage.store import Store
from bulkembed.storage.uris import canonical, join

METADATA = "metadata"
NUMBER = re.compile(r"v?([0-9]+)(-.*)?(\.gz)?\.metadata\.json")
DELETE_THREADS = 16


@dataclass(frozen=True)
class TableFiles:
    """The files of a table as pyiceberg opens them. `place_of`: from a name in the metadata to a URI."""

    store: Store
    place_of: Callable[[str], str]

    def new_input(self, location: str) -> InputFile:
        return InputFile(self.store, location, self.place_of(location))


@dataclass(frozen=True)
class InputFile:
    store: Store
    location: str
    uri: str

    def open(self, seekable: bool = True) -> io.BytesIO:
        return io.BytesIO(self.store.read(self.uri))


def read_iceberg(store: Store, folder: str, metadata_name: str | None = None) -> Table:
    """The current snapshot by one metadata file, else by the newest one. Raises UnreadableTable, and ImportError without pyiceberg."""
    from pyiceberg.catalog.noop import NoopCatalog
    from pyiceberg.serializers import FromInputFile
    from pyiceberg.table import StaticTable

    name = metadata_name or newest_metadata(store, folder)
    uri = join(folder, METADATA, name)
    try:
        metadata = FromInputFile.table_metadata(InputFile(store, uri, uri))
        place_of = place_in(folder, metadata.location)
        table = StaticTable(("table",), metadata, uri, TableFiles(store, place_of), NoopCatalog("none"))
        tasks = list(table.scan().plan_files())
        files = live_files(store, tasks, place_of, folder)
    except BulkembedError:
        raise
    except Exception as error:  # pyiceberg raises anything where metadata is damaged
        reason = str(error).partition("\n")[0]
        if "equality delete" in reason:
            reason = "it has equality deletes, which pyiceberg does not apply; compact the table, as Spark's rewrite_data_files does"
        raise UnreadableTable(f"{uri}: pyiceberg cannot read this Iceberg table: {reason}") from error
    snapshot = metadata.current_snapshot_id
    version = f"{'no snapshot' if snapshot is None else f'snapshot {snapshot}'} ({METADATA}/{name}) of the Iceberg table"
    deletes = {place_of(item.file_path).removeprefix(join(folder, "")) for task in tasks for item in task.delete_files}
    return Table(version, folder, files, columns_of(metadata), store.listing(folder), deletes)


def newest_metadata(store: Store, folder: str) -> str:
    """The name of the metadata file with the highest number. Raises UnreadableTable where two have it."""
    numbers = {name: int(number[1]) for name in store.names(join(folder, METADATA)) if (number := NUMBER.fullmatch(name))}
    newest = [name for name, number in numbers.items() if number == max(numbers.values())]
    if len(newest) != 1:
        found = f"{' and '.join(newest)} have the same number" if newest else "none has a number"
        raise UnreadableTable(
            f"{join(folder, METADATA)}: which metadata file is current is unknown: {found}; name the one that the catalog has as the source"
        )
    return newest[0]


def place_in(folder: str, location: str) -> Callable[[str], str]:
    """A function from a name in the metadata to its URI in `folder`. `location`: where the table was when it was written."""
    here, canonical_here = f"{location.rstrip('/')}/", f"{canonical(location)}/"

    def place_of(name: str) -> str:
        if name.startswith(here):
            return join(folder, name.removeprefix(here))
        if canonical(name).startswith(canonical_here):
            return join(folder, canonical(name).removeprefix(canonical_here))
        raise ValueError(f"its file {name} lies outside of the table's folder {location}")

    return place_of


def live_files(store: Store, tasks: Iterable[Any], place_of: Callable[[str], str], folder: str) -> dict[str, Rows]:
    """Paths of live files below the folder, and the rows of each that position deletes name."""
    deletes = {item.file_path: item for task in tasks for item in task.delete_files}
    with ThreadPoolExecutor(DELETE_THREADS) as pool:
        dead = dict(zip(deletes, pool.map(lambda item: positions(store, item, place_of), deletes.values()), strict=True))
    files = {}
    for task in tasks:
        name, kind = task.file.file_path, str(task.file.file_format).rpartition(".")[2]
        if kind != "PARQUET":
            raise ValueError(f"its file {name} is {kind}; only Parquet is read: rewrite the data files as Parquet")
        rows = [dead[item.file_path].get(name, np.zeros(0, np.int64)) for item in task.delete_files]
        files[place_of(name).removeprefix(join(folder, ""))] = np.unique(np.concatenate([np.zeros(0, np.int64), *rows]))
    return files


def positions(store: Store, item: Any, place_of: Callable[[str], str]) -> dict[str, Rows]:
    """The rows that a file of position deletes names, by data file. Raises ValueError for a kind of file that is not read."""
    from pyiceberg.table.deletion_vector import deletion_vectors_from_puffin_file
    from pyiceberg.table.puffin import PuffinFile

    data, kind = store.read(place_of(item.file_path)), str(item.file_format).rpartition(".")[2]
    if kind == "PUFFIN":
        vectors = deletion_vectors_from_puffin_file(PuffinFile(data))
        return {vector.referenced_data_file: vector.to_vector().to_numpy().astype(np.int64) for vector in vectors}
    if kind != "PARQUET":
        raise ValueError(f"its delete file {posixpath.basename(item.file_path)} is {kind}; compact the table")
    table = schema.table_of(data)
    return {name: table.filter(pc.equal(table["file_path"], name))["pos"].to_numpy() for name in pc.unique(table["file_path"]).to_pylist()}


def columns_of(metadata: Any) -> TableColumns:
    """Where the columns of the current schema stand in the files."""
    from pyiceberg.schema import index_by_name

    current = metadata.schema()
    identity = {field.source_id for spec in metadata.partition_specs for field in spec.fields if str(field.transform) == "identity"}
    outside = {
        field.name: "is not in this file, and has its value from the table's metadata; rewrite the table's data files"
        for field in current.fields
        if field.field_id in identity or field.initial_default is not None
    }
    return TableColumns(outside=outside, field_ids=index_by_name(current))
