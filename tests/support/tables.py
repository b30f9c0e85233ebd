"""Delta and Iceberg tables as other tools make them."""

from __future__ import annotations

import base64
import json
import struct
import uuid
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from deltalake import DeltaTable
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import load_file_io
from pyiceberg.manifest import DataFile, DataFileContent, FileFormat, ManifestContent, ManifestEntry, ManifestEntryStatus, ManifestWriterV2
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import update_table_metadata
from pyiceberg.table.update.snapshot import _FastAppendFiles
from pyiceberg.typedef import Record
from pyroaring import BitMap64

from bulkembed.storage.store import Store

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
BASE85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"  # of Python's own b85encode


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


def change_log(table: Path, *actions: dict[str, Any]) -> None:
    """Adds a version with these actions to the log of a Delta table."""
    log = table / "_delta_log" / f"{DeltaTable(table).version() + 1:020d}.json"
    log.write_text("".join(json.dumps(action) + "\n" for action in actions))


def log_actions(table: Path, kind: str) -> list[dict[str, Any]]:
    """All actions of one kind in the log of a Delta table, oldest first."""
    lines = [line for log in sorted((table / "_delta_log").glob("*.json")) for line in log.read_text().splitlines()]
    return [action[kind] for action in map(json.loads, lines) if kind in action]


def protocol(*features: str) -> dict[str, Any]:
    return {"protocol": {"minReaderVersion": 3, "minWriterVersion": 7, "readerFeatures": list(features), "writerFeatures": list(features)}}


def mark_deleted(table: Path, file: str, dead: Sequence[int], inline: bool = False) -> None:
    """Deletes rows of one file of a Delta table by a deletion vector, as Spark does. `inline`: it lies in the log itself."""
    bitmap = struct.pack("<I", 1681511377) + BitMap64(dead).serialize()
    add = next(add for add in reversed(log_actions(table, "add")) if add["path"] == file)
    vector: dict[str, Any] = {"storageType": "i", "pathOrInlineDv": z85(bitmap + bytes(-len(bitmap) % 4)), "sizeInBytes": len(bitmap)}
    if not inline:
        name = uuid.uuid4()
        framed = b"\1" + struct.pack(">I", len(bitmap)) + bitmap + struct.pack(">I", zlib.crc32(bitmap))
        (table / f"deletion_vector_{name}.bin").write_bytes(framed)
        vector = {"storageType": "u", "pathOrInlineDv": z85(name.bytes), "offset": 1, "sizeInBytes": len(bitmap)}
    removed = {name: add[name] for name in ("path", "partitionValues", "size")} | {"dataChange": True, "deletionTimestamp": 1}
    if "deletionVector" in add:
        removed["deletionVector"] = add["deletionVector"]
    marked = add | {"deletionVector": vector | {"cardinality": len(dead)}}
    change_log(table, protocol("deletionVectors"), {"remove": removed}, {"add": marked})


def z85(data: bytes) -> str:
    return base64.b85encode(data).decode().translate(str.maketrans(BASE85, Z85))


class FolderCatalog(NoopCatalog):  # type: ignore[misc]
    """A catalog of one Iceberg table, whose only record is the newest metadata file in its folder."""

    def __init__(self) -> None:
        super().__init__("folder")
        self.commits = 0

    def create(self, folder: Path, columns: pa.Schema) -> Table:
        arrow = self._convert_schema_if_needed(columns)
        metadata = new_table_metadata(arrow, UNPARTITIONED_PARTITION_SPEC, UNSORTED_SORT_ORDER, str(folder), {})
        io = load_file_io({}, str(folder))
        return Table(("db", "table"), metadata, self.write(metadata, io), io, self)

    def commit_table(self, table: Table, requirements: Any, updates: Any) -> CommitTableResponse:
        metadata = update_table_metadata(table.metadata, updates)
        return CommitTableResponse(metadata=metadata, metadata_location=self.write(metadata, table.io))

    def write(self, metadata: Any, io: Any) -> str:
        place = f"{metadata.location}/metadata/{self.commits:05d}-{uuid.uuid4()}.metadata.json"
        self.commits += 1
        ToOutputFile.table_metadata(metadata, io.new_output(place))
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
