"""Scans of source objects, kept: one key file for each object version, and its rejects beside it.

A key file is a Parquet file of KEYS. Its footer holds the counts and the layout of the object. It is written last, create-only, so that
an object with a key file is scanned. Two attempts write the same, since an object version never changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from hashlib import sha256
from typing import Any, TypeVar

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.dataset import paths
from bulkembed.dataset.parquet_file import PREFIX, footer_of, parquet_bytes
from bulkembed.errors import StorageError
from bulkembed.row_keys import HASH_BYTES, Keys, binary_of, hashes_of_column
from bulkembed.scans import Layout, Scan, ScanCounts
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store

T = TypeVar("T")

NAMES_PER_REQUEST = 1000  # of a listing on S3
READ_THREADS = 16  # the threads wait for the store, and compute little
VERSION = "1"  # of the format, which includes how values are hashed
ROWS_PER_GROUP = 1 << 20
KEYS = pa.schema(
    [
        pa.field("row", pa.int64(), nullable=False),  # of the source object
        pa.field("id_hash", pa.binary(HASH_BYTES), nullable=False),
        pa.field("content_hash", pa.binary(HASH_BYTES), nullable=False),
        pa.field("kept_hash", pa.binary(HASH_BYTES), nullable=False),
    ]
)


@dataclass(frozen=True)
class KeyFooter:
    """What the footer of a key file says."""

    counts: ScanCounts
    layout: Layout


def scanned(store: Store, output: str, line: str, object_ids: Sequence[str], n_objects: int) -> set[str]:
    """Which of these object versions have a key file: by a look at each, or by one listing where that takes fewer requests.

    `n_objects`: of the source, which has about as many key files."""
    if len(object_ids) > 1 + n_objects // NAMES_PER_REQUEST:
        names = store.names(paths.keys_folder(output, line))
        return {name.removesuffix(".parquet") for name in names if name.endswith(".parquet")}.intersection(object_ids)
    with ThreadPoolExecutor(READ_THREADS) as pool:
        stand = pool.map(lambda object_id: store.stands(paths.keys_uri(output, line, object_id)), object_ids)
        return {object_id for object_id, there in zip(object_ids, stand, strict=True) if there}


def remove_all(store: Store, output: str, line: str) -> None:
    """Removes all key files of a line, and their rejects. Only for a line without a snapshot that needs them."""
    names = store.names(paths.keys_folder(output, line))
    for object_id in sorted(name.removesuffix(".parquet") for name in names if name.endswith(".parquet")):
        store.delete(paths.keys_uri(output, line, object_id))
        store.delete(paths.rejects_uri(output, line, object_id))


def write_scan(store: Store, output: str, line: str, object_id: str, scan: Scan) -> None:
    """Writes the rejects file, if there are rejects, and then creates the key file. A key file that stands there stays."""
    if scan.rejects.num_rows:
        store.put(paths.rejects_uri(output, line, object_id), parquet_bytes(scan.rejects, {"line": line}))
    store.create(paths.keys_uri(output, line, object_id), key_file_bytes(scan))


def key_file_bytes(scan: Scan) -> bytes:
    keys, layout = scan.keys, scan.layout
    columns = [pa.array(keys.rows), *map(binary_of, (keys.ids, keys.contents, keys.kept))]
    places = {"part_rows": layout.part_rows, "part_bytes": layout.part_bytes, "offsets": layout.offsets}
    said = {"counts": orjson.dumps(asdict(scan.counts)).decode(), "layout": orjson.dumps(places).decode()}
    footer = {"keys": VERSION, "digest": digest_of(said)} | said
    metadata = {f"{PREFIX}{name}": text for name, text in footer.items()}
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(columns, schema=KEYS.with_metadata(metadata)),
        sink,
        row_group_size=ROWS_PER_GROUP,
        compression={"row": "zstd", "id_hash": "none", "content_hash": "none", "kept_hash": "zstd"},  # without kept columns: zeros
        use_dictionary=False,
        column_encoding={"row": "DELTA_BINARY_PACKED"},
        write_statistics=False,
        write_page_checksum=True,
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_keys(store: Store, output: str, line: str, object_ids: Sequence[str]) -> Keys:
    """The keys of these object versions. Owners are indices into `object_ids`.

    Raises FileNotFoundError where one has no key file, and StorageError where its key file is damaged."""

    def read(owner: int) -> Keys:
        uri = paths.keys_uri(output, line, object_ids[owner])
        data = store.read(uri)
        return undamaged(uri, lambda: keys_in(pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True))).owned_by(owner)

    with ThreadPoolExecutor(READ_THREADS) as pool:
        return Keys.concat(list(pool.map(read, range(len(object_ids)))))


def read_scan_counts(store: Store, output: str, line: str, object_ids: Sequence[str]) -> list[ScanCounts]:
    """How much each of these object versions holds, by the footers of their key files. Raises as `read_keys`."""
    with ThreadPoolExecutor(READ_THREADS) as pool:
        return [footer.counts for footer in pool.map(lambda object_id: read_footer(store, output, line, object_id), object_ids)]


def read_layout(store: Store, output: str, line: str, object_id: str) -> Layout:
    """The layout of an object version, by the footer of its key file. Raises as `read_keys`."""
    return read_footer(store, output, line, object_id).layout


def read_footer(store: Store, output: str, line: str, object_id: str) -> KeyFooter:
    uri = paths.keys_uri(output, line, object_id)

    def read() -> KeyFooter:
        with store.open(uri) as file:
            return footer_in(pq.ParquetFile(file))

    return undamaged(uri, lambda: store.retrying(read, f"reading {uri}"))


def undamaged(uri: str, read: Callable[[], T]) -> T:
    """What `read` returns. Raises StorageError where it fails because of what the file holds."""
    try:
        return read()
    except FileNotFoundError:
        raise
    except (*CORRUPT, KeyError, TypeError, ValueError) as error:
        raise StorageError(
            f"{uri}: no key file of this version, or damaged: {describe_error(error)}; delete it, and the next run does without it"
        ) from error


def keys_in(parquet: pq.ParquetFile) -> Keys:
    """The keys in a key file. Raises ValueError where it does not hold what its footer says."""
    footer = footer_in(parquet)
    table = parquet.read(use_threads=False)
    if table.num_rows != footer.counts.documents:
        raise ValueError(f"{table.num_rows} keys, not {footer.counts.documents}")
    return Keys(
        ids=hashes_of_column(table["id_hash"]),
        contents=hashes_of_column(table["content_hash"]),
        kept=hashes_of_column(table["kept_hash"]),
        rows=table["row"].to_numpy(),
        owners=np.zeros(table.num_rows, np.int32),
    )


def footer_in(parquet: pq.ParquetFile) -> KeyFooter:
    """Raises KeyError, TypeError or ValueError where the file is no key file of this version."""
    texts = footer_of(parquet.schema_arrow)
    if texts.get("keys") != VERSION or not parquet.schema_arrow.remove_metadata().equals(KEYS):
        raise ValueError(f"its format is {texts.get('keys')!r}, not {VERSION!r}")
    if texts["digest"] != digest_of(texts):
        raise ValueError("its footer is not what was written")
    places: dict[str, Any] = orjson.loads(texts["layout"])
    return KeyFooter(ScanCounts(**orjson.loads(texts["counts"])), Layout(schema=None, **places))


def digest_of(texts: Mapping[str, str]) -> str:
    """Of counts and layout in a footer, which no checksum of a page covers."""
    return sha256(f"{texts['counts']}\n{texts['layout']}".encode()).hexdigest()[:16]
