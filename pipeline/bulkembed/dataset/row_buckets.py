"""Keys of rows, kept on the local disk by buckets of their hashes, so that one bucket at a time is in memory."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from bulkembed.dataset.changes import ROW_KEY, RowKeys
from bulkembed.errors import StorageError
from bulkembed.storage.faults import describe_error

MAX_PENDING_ROWS = 500_000  # 28 MB, before they go to the disk


class RowBuckets:
    """A multiset of keys. All rows of a key are in the same bucket."""

    def __init__(self, folder: Path, count: int) -> None:
        folder.mkdir()
        self.folder, self.count = folder, count
        self.pending: list[RowKeys] = []
        self.pending_rows = 0

    def add(self, rows: RowKeys) -> None:
        self.pending.append(rows)
        self.pending_rows += len(rows)
        if self.pending_rows > MAX_PENDING_ROWS:
            self.flush()

    def flush(self) -> None:
        if not self.pending_rows:
            return
        rows = np.concatenate(self.pending)
        self.pending, self.pending_rows = [], 0
        numbers = (rows["key"][:, 0] % np.uint64(self.count)).astype(np.int64)
        order = np.argsort(numbers, kind="stable")
        stops = np.cumsum(np.bincount(numbers, minlength=self.count))
        for bucket, part in enumerate(np.split(order, stops[:-1])):
            if len(part):
                self.append(bucket, rows[part].tobytes())

    def append(self, bucket: int, data: bytes) -> None:
        try:
            with self.path(bucket).open("ab") as file:
                file.write(data)
        except OSError as error:
            raise StorageError(f"{self.folder}: {describe_error(error)}; TMPDIR names another folder for temporary files") from error

    def read(self, bucket: int) -> RowKeys:
        self.flush()
        path = self.path(bucket)
        return np.fromfile(path, ROW_KEY) if path.exists() else np.empty(0, ROW_KEY)

    def path(self, bucket: int) -> Path:
        return self.folder / f"{bucket:05d}"
