"""Rows of tables, and delete files of Iceberg."""

from __future__ import annotations

import json
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestWriterV2
from pyiceberg.table import Table
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record
from pyroaring import BitMap64

from bulkembed.storage.store import Store


def rows(*numbers: int, text: str = "document", **columns: Any) -> pa.Table:
    """Rows of which each has its own text."""
    extra = {name: [value] * len(numbers) for name, value in columns.items()}
    return pa.table({"id": pa.array(numbers, pa.int64()), "text": [f"{text} {number}" for number in numbers], **extra})


def upload(folder: Path, store: Store, place: str) -> str:
    """Copies a local table to a place. Returns the place."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            store.put(f"{place}/{path.relative_to(folder)}", path.read_bytes())
    return place


class DeleteManifestWriter(ManifestWriterV2):  # type: ignore[misc]
    """Writes a manifest of delete files, which pyiceberg itself never does."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return {**super()._meta, "content": "deletes"}


class Deletes(_FastAppendFiles):  # type: ignore[misc]
    """A commit that adds delete files."""

    def _manifests(self) -> list[Any]:
        output = self.new_manifest_output()
        with DeleteManifestWriter(self.spec(0), self._transaction.table_metadata.schema(), output, self.snapshot_id, "null") as writer:
            for file in self._added_data_files:
                entry = ManifestEntry.from_args(
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=self.snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=file,
                )
                writer.add_entry(entry)
        return [writer.to_manifest_file(), *self._existing_manifests()]


def delete_rows(
    table: Table, dead: Sequence[tuple[str, int]], content: DataFileContent = DataFileContent.POSITION_DELETES, format: str = "PARQUET"
) -> None:
    """Deletes rows of an Iceberg table by a delete file, as Spark and Flink do. `dead`: (path of a data file as the table has it, row)."""
    place = f"{table.location()}/data/{uuid.uuid4()}-deletes.{format.lower()}"
    if format == "PUFFIN":
        Path(place).write_bytes(puffin(dead))
    else:
        paths, numbers = [path for path, _ in dead], [number for _, number in dead]
        pq.write_table(pa.table({"file_path": paths, "pos": pa.array(numbers, pa.int64())}), place)
    file = DataFile.from_args(
        content=content,
        file_path=place,
        file_format=FileFormat(format),
        partition=Record(),
        record_count=len(dead),
        file_size_in_bytes=Path(place).stat().st_size,
        equality_ids=[1] if content == DataFileContent.EQUALITY_DELETES else None,
        spec_id=0,
    )
    with table.transaction() as transaction:
        update = Deletes(operation=table.current_snapshot().summary.operation, transaction=transaction, io=table.io)
        update.append_data_file(file)
        update.commit()


def puffin(dead: Sequence[tuple[str, int]]) -> bytes:
    """A Puffin file with a deletion vector for each data file, as tables of version 3 have them."""
    body, blobs = b"PFA1", []
    for path in sorted({path for path, _ in dead}):
        vector = bytes.fromhex("d1d33964") + BitMap64([number for name, number in dead if name == path]).serialize()
        blob = struct.pack(">I", len(vector)) + vector + struct.pack(">I", zlib.crc32(vector))
        place = {"type": "deletion-vector-v1", "fields": [], "snapshot-id": -1, "sequence-number": -1}
        blobs.append(place | {"offset": len(body), "length": len(blob), "properties": {"referenced-data-file": path}})
        body += blob
    footer = json.dumps({"blobs": blobs, "properties": {}}).encode()
    return body + b"PFA1" + footer + struct.pack("<II", len(footer), 0) + b"PFA1"
