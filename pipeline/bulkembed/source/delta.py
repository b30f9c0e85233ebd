"""A Delta table -> its live files.

The log is copied to a local folder, where deltalake reads it. So the table is read with the store's own settings and retries."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np
import orjson
import pyarrow as pa

from bulkembed.errors import BulkembedError
from bulkembed.source.live_files import Rows, Table, TableColumns, UnreadableTable
from bulkembed.source.place_columns import hive_parts
from bulkembed.storage.listing import Listing
from bulkembed.storage.store import Store
from bulkembed.storage.uris import join

LOG, SIDECARS, HINT = "_delta_log", "_sidecars", "_last_checkpoint"
VERSION = re.compile(r"[0-9]{20}(?=\.)")
DELETION_VECTORS = re.compile(r"(.*/)?deletion_vector_[0-9a-f-]{36}\.bin")
COPY_THREADS = 16
ELSEWHERE = "is a partition column, whose values are in the table's log and not in its files; write it as an ordinary column too"


def read_delta(store: Store, folder: str) -> Table:
    """The newest version of a Delta table. Raises UnreadableTable, and ImportError where the package is missing."""
    from deltalake import DeltaTable

    with TemporaryDirectory() as mirror:
        try:
            copy_files(store, folder, log_files(store, folder), Path(mirror))
            table = DeltaTable(mirror)
            actions = pa.table(table.get_add_actions())
            live = live_paths(actions)
            listing = store.listing(folder)  # after the log, so that it has all files of that version
            vectors = deletion_vectors(listing)
            dead = dead_rows(store, folder, vectors, table, Path(mirror))
        except BulkembedError:
            raise
        except Exception as error:  # deltalake raises anything where a log is damaged
            reason = str(error).partition("\n")[0].replace(f"file://{mirror}", folder).replace(mirror, folder)
            raise UnreadableTable(f"{folder}: deltalake cannot read this Delta table: {reason}") from error
    nothing = np.zeros(0, np.int64)
    files = {path: dead.get(path, nothing) for path in live}
    outside = dict.fromkeys(untold_partitions(table.metadata().partition_columns, actions, live), ELSEWHERE)
    schema = orjson.loads(table.schema().to_json())
    columns = TableColumns(renamed=dict(renamed_columns(schema)), outside=outside)
    return Table(f"version {table.version()} of the Delta table", folder, files, columns, listing, vectors)


def log_files(store: Store, folder: str) -> list[str]:
    """The files of the log from the newest checkpoint on, by their paths below the folder."""
    names = store.names(join(folder, LOG))
    first = 0
    if HINT in names:
        first = int(orjson.loads(store.read(join(folder, LOG, HINT)))["version"])
    wanted = [name for name in names if (number := VERSION.match(name)) and int(number[0]) >= first and not name.endswith(".crc")]
    sidecars = store.names(join(folder, LOG, SIDECARS)) if SIDECARS in names else []
    return [f"{LOG}/{name}" for name in wanted] + [f"{LOG}/{SIDECARS}/{name}" for name in sidecars]


def copy_files(store: Store, folder: str, paths: Iterable[str], mirror: Path) -> None:
    def copy(path: str) -> None:
        (mirror / path).parent.mkdir(parents=True, exist_ok=True)
        (mirror / path).write_bytes(store.read(join(folder, path)))

    with ThreadPoolExecutor(COPY_THREADS) as pool:
        for _ in pool.map(copy, paths):
            pass


def live_paths(actions: pa.Table) -> list[str]:
    """Paths below the table's folder. Raises ValueError where a file lies elsewhere, as those of a shallow clone do."""
    encoded: list[str] = actions["path"].to_pylist()
    absolute = next((path for path in encoded if "://" in path or path.startswith("/")), None)
    if absolute is not None:
        raise ValueError(f"its file {absolute} lies in another folder, as those of a shallow clone do; make a deep clone")
    return [unquote(path) for path in encoded]


def untold_partitions(names: Sequence[str], actions: pa.Table, paths: Sequence[str]) -> list[str]:
    """Partition columns whose values the names of folders do not tell. Delta keeps these values in its log alone."""
    values = actions["partition"].to_pylist() if names else []
    told = [hive_parts(path) for path in paths] if names else []
    return [
        name
        for name in names
        if any(name not in part or part[name] != hive_text(row.get(name)) for part, row in zip(told, values, strict=True))
    ]


def hive_text(value: Any) -> str | None:
    """A value as the name of a folder tells it."""
    if isinstance(value, bool):
        return str(value).lower()
    return None if value is None else str(value)


def deletion_vectors(listing: Listing) -> list[str]:
    """Paths of files of deletion vectors, live or not."""
    return [path for item in listing.objects if DELETION_VECTORS.fullmatch(path := item.relative_path) and ".." not in path.split("/")]


def dead_rows(store: Store, folder: str, vectors: list[str], table: Any, mirror: Path) -> dict[str, Rows]:
    """The rows that deletion vectors mark, by the path of their file. `vectors`: the files that hold them."""
    if "deletionVectors" not in (table.protocol().reader_features or []):
        return {}
    copy_files(store, folder, vectors, mirror)
    root = f"{mirror.resolve()}/"
    dead = {}
    for batch in pa.RecordBatchReader.from_stream(table.deletion_vectors()):
        for uri, kept in zip(batch["filepath"].to_pylist(), batch["selection_vector"], strict=True):
            is_kept = kept.values.to_numpy(zero_copy_only=False)
            dead[unquote(urlsplit(uri).path).removeprefix(root)] = np.flatnonzero(~is_kept)
    return dead


def renamed_columns(schema: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Columns that have another name in the files, or a field in them has, and why they are not read."""
    for column in schema["fields"]:
        physical = next(physical_names(column), None)
        if physical is not None:
            yield column["name"], f"is stored under another name ({physical}); copy the table to one without column mapping"


def physical_names(value: Any) -> Iterator[str]:
    """The stored names in a column's part of a schema that are not its own names."""
    if isinstance(value, dict):
        name = value.get("metadata", {}).get("delta.columnMapping.physicalName", value.get("name"))
        if name != value.get("name"):
            yield name
        for part in ("type", "fields", "elementType", "keyType", "valueType"):
            yield from physical_names(value.get(part))
    elif isinstance(value, list):
        for each in value:
            yield from physical_names(each)
