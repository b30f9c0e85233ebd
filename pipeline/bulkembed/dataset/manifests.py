"""What a snapshot lists: its data files, the object versions that it was made from, and the rejects that are remembered.

A manifest is Parquet, in parts, since a snapshot may list 10^7 files. It is written under a random token before its snapshot, and belongs
to that snapshot alone."""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset import paths
from bulkembed.errors import StorageError
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

T = TypeVar("T")

REMEDY = "restore it from a backup, or go back to an older snapshot with `bulkembed rollback` and run the job again"
PART_ROWS = 100_000
PART_BYTES = 8 << 20  # of `contents`, which are 4 bytes a document: a part is in memory several times while it is read or written


@dataclass(frozen=True)
class DataFile:
    """A live data file. All its rows are live."""

    name: str
    rows: int
    documents: int  # fewer than rows where windows are rows
    tokens: int
    data_bytes: int
    data_sha256: str
    contents: bytes  # sorted unique uint32: the first four bytes of the content hash of each document


@dataclass(frozen=True)
class SourceVersion:
    """A version of a source object that the snapshot was made from."""

    object_id: str
    path: str  # below the source
    rows: int
    rejects: int  # that its scan found


@dataclass(frozen=True)
class Rejected:
    """A content that the stages after the scan have rejected."""

    content_hash: bytes
    reason: str
    detail: str
    rows: int  # of the source, that have this content


Entry = TypeVar("Entry", DataFile, SourceVersion, Rejected)
KINDS: dict[type[Any], str] = {DataFile: "files", SourceVersion: "sources", Rejected: "rejected"}
ARROW_TYPES = {"str": pa.string(), "int": pa.int64(), "bytes": pa.binary()}


def new_token() -> str:
    return secrets.token_hex(16)


def write_parts(store: Store, output: str, token: str, kind: type[Entry], entries: Iterable[Entry]) -> Iterator[Entry]:
    """Writes the entries in parts, and yields each. There is a part also where there is no entry."""
    whole = iter(entries)
    number = 0
    while (part := next_part(whole)) or not number:
        store.put(part_uri(output, token, kind, number), parquet_bytes(kind, part))
        yield from part
        number += 1


def next_part(entries: Iterator[Entry]) -> list[Entry]:
    part, size = [], 0
    for entry in islice(entries, PART_ROWS):
        part.append(entry)
        size += len(getattr(entry, "contents", b""))
        if size >= PART_BYTES:
            break
    return part


def part_uri(output: str, token: str, kind: type[Entry], number: int) -> str:
    return join(paths.manifest_folder(output, token), part_name(kind, number))


def part_name(kind: type[Entry], number: int) -> str:
    return f"{KINDS[kind]}-{number:05d}.parquet"


def parquet_bytes(kind: type[Entry], part: list[Entry]) -> bytes:
    sink = pa.BufferOutputStream()
    table = pa.Table.from_pylist([vars(entry) for entry in part], schema=arrow_schema(kind))
    pq.write_table(table, sink, compression="zstd", use_dictionary=False, write_page_checksum=True)
    return bytes(sink.getvalue())


def arrow_schema(kind: type[Entry]) -> pa.Schema:
    return pa.schema([pa.field(item.name, ARROW_TYPES[str(item.type)], nullable=False) for item in fields(kind)])


def stands(store: Store, output: str, token: str) -> bool:
    """Whether a manifest is there. gc deletes its first part last of all that it lists, and before its other parts."""
    return store.stands(part_uri(output, token, DataFile, 0))


class Manifest:
    """What a snapshot lists. Each part is read at most once, when it is first asked for.

    Raises StorageError where parts are missing or damaged, or list another number of files than the snapshot says."""

    def __init__(self, store: Store, output: str, token: str, n_files: int) -> None:
        self.store, self.folder, self.n_files = store, paths.manifest_folder(output, token), n_files

    @cached_property
    def files(self) -> list[DataFile]:
        """In the order of their names."""
        return self.complete(list(entries(DataFile, self.tables(DataFile, None))))

    @cached_property
    def names(self) -> list[str]:
        """The names of the data files, ascending. `contents`, which are most of the bytes, are not kept."""
        if "files" in vars(self):
            return [item.name for item in self.files]
        return self.complete(texts("name", self.tables(DataFile, ["name"])))

    @cached_property
    def sources(self) -> list[SourceVersion]:
        """In source order."""
        return list(entries(SourceVersion, self.tables(SourceVersion, None)))

    @cached_property
    def rejected(self) -> list[Rejected]:
        return list(entries(Rejected, self.tables(Rejected, None)))

    @cached_property
    def listed(self) -> list[str]:
        """Names of the parts of all kinds."""
        return self.store.names(self.folder)

    def tables(self, kind: type[Entry], columns: list[str] | None) -> Iterator[pa.Table]:
        return listed_tables(self.store, self.folder, self.listed, kind, columns)

    def complete(self, items: list[T]) -> list[T]:
        if len(items) != self.n_files:
            raise StorageError(f"{self.folder}: is damaged: {len(items)} files of {self.n_files}; {REMEDY}")
        return items


def read_files(store: Store, output: str, token: str) -> Iterator[DataFile]:
    """The data files of a manifest, in the order of their names."""
    return entries(DataFile, tables(store, output, token, DataFile, None))


def read_sources(store: Store, output: str, token: str) -> Iterator[SourceVersion]:
    """The object versions of a manifest, in source order."""
    return entries(SourceVersion, tables(store, output, token, SourceVersion, None))


def read_rejected(store: Store, output: str, token: str) -> Iterator[Rejected]:
    return entries(Rejected, tables(store, output, token, Rejected, None))


def read_names(store: Store, output: str, token: str) -> list[str]:
    """The names of the data files of a manifest. `contents`, which are most of its bytes, are not kept."""
    return texts("name", tables(store, output, token, DataFile, ["name"]))


def read_source_ids(store: Store, output: str, token: str) -> list[str]:
    """The ids of the object versions of a manifest."""
    return texts("object_id", tables(store, output, token, SourceVersion, ["object_id"]))


def entries(kind: type[Entry], parts: Iterable[pa.Table]) -> Iterator[Entry]:
    return (kind(**record) for table in parts for record in table.to_pylist())


def texts(column: str, parts: Iterable[pa.Table]) -> list[str]:
    return [text for table in parts for text in table[column].to_pylist()]


def tables(store: Store, output: str, token: str, kind: type[Entry], columns: list[str] | None) -> Iterator[pa.Table]:
    """The parts of a kind in turn. Raises StorageError where one is missing or damaged."""
    folder = paths.manifest_folder(output, token)
    return listed_tables(store, folder, store.names(folder), kind, columns)


def listed_tables(store: Store, folder: str, listed: Sequence[str], kind: type[Entry], columns: list[str] | None) -> Iterator[pa.Table]:
    """As `tables`, of a manifest whose folder is listed."""
    names = [name for name in listed if name.startswith(f"{KINDS[kind]}-")]
    if not names or names != [part_name(kind, number) for number in range(len(names))]:
        raise StorageError(f"{folder}: parts of this manifest are missing ({KINDS[kind]}); {REMEDY}")
    for name in names:
        yield read_part(store, join(folder, name), kind, columns)


def read_part(store: Store, uri: str, kind: type[Entry], columns: list[str] | None) -> pa.Table:
    # As bytes: Arrow's threads would hold the Python file, and a command that ends at that moment would crash. See schema.table_of.
    expected = arrow_schema(kind) if columns is None else pa.schema([arrow_schema(kind).field(name) for name in columns])
    try:
        table = schema.table_of(store.read(uri), columns)
    except FileNotFoundError as error:
        raise StorageError(f"{uri}: missing; {REMEDY}") from error
    except (*CORRUPT, KeyError) as error:
        raise StorageError(f"{uri}: is damaged: {describe_error(error)}; {REMEDY}") from error
    if not table.schema.remove_metadata().equals(expected):
        raise StorageError(f"{uri}: is damaged: its columns are {', '.join(table.column_names)}, not those of this version; {REMEDY}")
    return table
