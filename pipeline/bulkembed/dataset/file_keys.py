"""A data file -> the keys of its documents; and which contents a file may hold, by 4 bytes of each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bulkembed import row_keys
from bulkembed.errors import StorageError
from bulkembed.row_keys import Hashes, Keys
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store


@dataclass(frozen=True, eq=False)
class FileKeys:
    """The n documents of a data file."""

    keys: Keys  # rows: the first row of each document in the file; owners are 0
    lengths: npt.NDArray[np.int64]  # (n,): rows of each document; 1 without chunks


def keys_of_file(store: Store, uri: str, kept: Sequence[str]) -> FileKeys:
    """The keys of the documents in a data file. It reads the small columns only. `kept`: names of the kept columns.

    Raises StorageError where the file is damaged, and FileNotFoundError where it is gone."""

    def read() -> pa.Table:
        with store.open(uri) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
            return parquet.read(key_columns(parquet.schema_arrow, kept), use_threads=False)

    try:
        return keys_of_table(store.retrying(read, f"reading {uri}"), kept)
    except FileNotFoundError:
        raise
    except (*CORRUPT, KeyError, ValueError) as error:
        raise StorageError(f"{uri}: is damaged: {describe_error(error)}; delete it, and the next run makes its rows again") from error


def contents_of_file(store: Store, uri: str) -> Hashes:
    """The content hash of each document in a data file. It reads the hashes only. Raises as `keys_of_file`."""

    def read() -> pa.Table:
        with store.open(uri) as file:
            parquet = pq.ParquetFile(file, pre_buffer=True, page_checksum_verification=True)
            return parquet.read(hash_columns(parquet.schema_arrow), use_threads=False)

    try:
        table = store.retrying(read, f"reading {uri}")
    except FileNotFoundError:
        raise
    except CORRUPT as error:
        raise StorageError(f"{uri}: is damaged: {describe_error(error)}; `bulkembed verify` says what else is") from error
    if "chunk_index" not in table.column_names:
        return row_keys.hashes_of_column(table["content_hash"])
    return row_keys.hashes_of_column(table.filter(pc.equal(table["chunk_index"], 0))["document_hash"])


def hash_columns(arrow: pa.Schema) -> list[str]:
    """The columns that hold the content hashes of documents."""
    return ["chunk_index", "document_hash"] if "chunk_index" in arrow.names else ["content_hash"]


def key_columns(arrow: pa.Schema, kept: Sequence[str]) -> list[str]:
    """The columns of a data file that its keys are made of. Raises KeyError where one is missing."""
    names = ["id", *kept, *hash_columns(arrow)]
    for name in names:
        arrow.field(name)
    return names


def keys_of_table(table: pa.Table, kept: Sequence[str]) -> FileKeys:
    """The keys of the documents in the rows of a data file. Raises ValueError where the rows of a document do not stand together."""
    chunked, rows = "chunk_index" in table.column_names, table.num_rows
    first_rows = np.arange(rows)
    if chunked:
        first_rows = np.flatnonzero(table["chunk_index"].to_numpy() == 0)
        if rows and (not len(first_rows) or first_rows[0]):
            raise ValueError("its first row is no first chunk")
        table = table.take(pa.array(first_rows))
    keys = Keys(
        ids=row_keys.id_hashes(table["id"]),
        contents=row_keys.hashes_of_column(table["document_hash" if chunked else "content_hash"]),
        kept=row_keys.kept_hashes(table, kept),
        rows=first_rows,
        owners=np.zeros(len(first_rows), np.int32),
    )
    return FileKeys(keys, np.diff(first_rows, append=rows))


def content_prefixes(hashes: Hashes) -> bytes:
    """The first 4 bytes of each content hash as uint32, lowest byte first; sorted, each once."""
    return np.unique(prefixes_of(hashes)).astype("<u4").tobytes()


def may_hold(prefixes: bytes, hashes: Hashes) -> npt.NDArray[np.bool_]:
    """For each hash, whether the file with these content prefixes may hold it. A file that holds it always says so."""
    known = np.frombuffer(prefixes, "<u4")
    if not len(known):
        return np.zeros(len(hashes), np.bool_)
    wanted = prefixes_of(hashes)
    found: npt.NDArray[np.bool_] = known[np.minimum(np.searchsorted(known, wanted), len(known) - 1)] == wanted
    return found


def prefixes_of(hashes: Hashes) -> npt.NDArray[np.uint32]:
    return np.ascontiguousarray(hashes).view("<u4").reshape(-1, 4)[:, 0]
