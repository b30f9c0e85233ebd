"""Places of changes -> the tables of a feed: upserts with their marks, deletes with their reasons."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.dataset.data_rows import read_rows
from bulkembed.dataset.read_ahead import read_ahead
from bulkembed.dataset.reject_reasons import RejectReasons
from bulkembed.dataset.vector_columns import stored_values
from bulkembed.errors import SourceError
from bulkembed.records import VectorForm
from bulkembed.schema import CHUNKS
from bulkembed.storage.store import Store
from bulkembed.vectors.matryoshka import Vectors
from bulkembed.vectors.quantize import decode_vectors

MAX_FILES_AHEAD = 4  # whose changed rows are in memory
CHUNK_INDEX = CHUNKS[0].with_nullable(True)
KEY_NAMESPACE = uuid.NAMESPACE_OID
Step = Callable[[pa.Table], pa.Table]


def upsert_tables(store: Store, uris: list[str], upserts: npt.NDArray[np.void], steps: list[Step]) -> Iterator[pa.Table]:
    """The changed rows of one data file after the other, with `vector_changed` and `rows_of_id`, after these steps."""

    def read(part: npt.NDArray[np.void]) -> pa.Table:
        rows = read_rows(store, uris[part["file"][0]], part["row"].astype(np.int64)).replace_schema_metadata(None)
        for step in steps:
            rows = step(rows)
        rows = append(rows, "vector_changed", pa.array(part["vector_changed"]))
        return append(rows, "rows_of_id", pa.array(part["rows_of_id"]))

    return read_ahead(read, by_file(upserts), MAX_FILES_AHEAD)


def delete_tables(
    store: Store, uris: list[str], deletes: npt.NDArray[np.void], steps: list[Step], reasons: RejectReasons
) -> Iterator[pa.Table]:
    """The keys that are gone from one data file after the other, with their reasons, after these steps."""

    def read(part: npt.NDArray[np.void]) -> pa.Table:
        uri, places = uris[part["file"][0]], part["row"].astype(np.int64)
        rows = read_rows(store, uri, places, ["id", CHUNK_INDEX.name]).replace_schema_metadata(None)
        if CHUNK_INDEX.name not in rows.column_names:
            rows = rows.append_column(CHUNK_INDEX, pa.nulls(len(rows), CHUNK_INDEX.type))
        for step in steps:
            rows = step(rows)
        return append(rows, "reason", reasons.of(rows["id"]))

    return read_ahead(read, by_file(deletes), MAX_FILES_AHEAD)


def by_file(places: npt.NDArray[np.void]) -> list[npt.NDArray[np.void]]:
    """The places of each file, of places in the order of files."""
    return np.split(places, np.flatnonzero(np.diff(places["file"])) + 1) if len(places) else []


def append(table: pa.Table, name: str, values: pa.Array) -> pa.Table:
    """Raises SourceError where the dataset has a column of this name."""
    if name in table.column_names:
        raise SourceError(f"feed: the dataset keeps a column {name!r}, and a feed has one of its own by this name")
    return table.append_column(pa.field(name, values.type, nullable=False), values)


def float32_lists(forms: dict[str, VectorForm], ranges: dict[str, Vectors]) -> Step:
    """A step that makes every vector a variable list of float32, as near to the embedding as its form allows."""

    def step(rows: pa.Table) -> pa.Table:
        for name in [name for name in rows.column_names if name in forms]:
            vectors = decode_vectors(stored_values(rows, name), forms[name], ranges.get(name))
            offsets = np.arange(0, vectors.size + 1, vectors.shape[1], dtype=np.int32)
            lists = pa.ListArray.from_arrays(pa.array(offsets), pa.array(vectors.reshape(-1)))
            rows = rows.set_column(rows.column_names.index(name), pa.field(name, lists.type, nullable=False), lists)
        return rows

    return step


def uuid_keys(rows: pa.Table) -> pa.Table:
    """The rows with a column `key`: the 16 bytes of a UUID of their id, and of the chunk's index where there is one."""
    ids = rows["id"]
    if not is_named_by_text(ids.type):
        raise SourceError(f"key: ids of type {ids.type} have no UUID; only integers, texts, bytes and UUIDs have one")
    names = [value.hex() if isinstance(value, bytes) else str(value) for value in ids.to_pylist()]
    if CHUNK_INDEX.name in rows.column_names and not rows[CHUNK_INDEX.name].null_count:
        names = [f"{name}/{index}" for name, index in zip(names, rows[CHUNK_INDEX.name].to_pylist(), strict=True)]
    keys = [uuid.uuid5(KEY_NAMESPACE, name).bytes for name in names]
    return append(rows, "key", pa.array(keys, pa.binary(16)))


def is_named_by_text(kind: pa.DataType) -> bool:
    texts = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)
    return pa.types.is_integer(kind) or kind == pa.uuid() or any(is_text(kind) for is_text in texts)
