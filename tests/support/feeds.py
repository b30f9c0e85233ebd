"""A reader that follows a dataset by its feeds, as plain Python."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from bulkembed.dataset.snapshots import data_files, snapshot_of
from bulkembed.storage.store import Store

MARKS = ("vector_changed", "rows_of_id")


def copy_of(output: Path, number: int) -> list[dict[str, Any]]:
    """The rows of a snapshot."""
    uris = data_files(Store(), str(output), snapshot_of(Store(), str(output), number))
    return [row for uri in uris for row in pq.ParquetFile(uri).read().to_pylist()]


def apply(target: list[dict[str, Any]], folder: Path) -> list[dict[str, Any]]:
    """What a loader does: the upserts replace all rows of their keys, then the deletes go."""

    def key(row: dict[str, Any]) -> tuple[str, int | None]:
        return row["id"], row.get("chunk_index")

    upserts, deletes = read(folder, "upserts"), read(folder, "deletes")
    replaced = {key(row) for row in upserts}
    target = [row for row in target if key(row) not in replaced]
    target += [{name: value for name, value in row.items() if name not in MARKS} for row in upserts]
    gone = {key(row) for row in deletes}
    return [row for row in target if key(row) not in gone]


def multiset(rows: list[dict[str, Any]]) -> Counter[str]:
    return Counter(repr(sorted(row.items())) for row in rows)


def read(folder: Path, kind: str) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob(f"{kind}/*.parquet")) for row in pq.ParquetFile(path).read().to_pylist()]
