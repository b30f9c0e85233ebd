"""Delta and Iceberg tables as Spark and catalogs make them, by the parts of them that Python packages do not write."""

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
from deltalake import DeltaTable
from pyiceberg.catalog.noop import NoopCatalog
from pyiceberg.io import load_file_io
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.serializers import ToOutputFile
from pyiceberg.table import CommitTableResponse, Table
from pyiceberg.table.metadata import new_table_metadata
from pyiceberg.table.sorting import UNSORTED_SORT_ORDER
from pyiceberg.table.update import update_table_metadata
from pyroaring import BitMap64

Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
BASE85 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz!#$%&()*+-;<=>?@^_`{|}~"  # of Python's own b85encode


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
