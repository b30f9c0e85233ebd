"""Datasets of several snapshots that no run has made: data files, rejects and manifests are written as a run writes them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b, sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import schema
from bulkembed.dataset import paths
from bulkembed.dataset.key_files import write_scan
from bulkembed.dataset.manifests import DataFile, Rejected, SourceVersion
from bulkembed.dataset.parquet_file import data_table, parquet_bytes
from bulkembed.dataset.publishing import publish_snapshot
from bulkembed.dataset.snapshots import Draft, Snapshot, newest_of_line
from bulkembed.forms import vector_columns
from bulkembed.records import VectorForm, parse_forms
from bulkembed.row_keys import Keys, content_hashes, id_hashes
from bulkembed.scans import Layout, Scan, ScanCounts
from bulkembed.storage.store import Store
from bulkembed.vectors.quantize import encode_vectors, int8_ranges_to_text

STORE = Store()


class Row(NamedTuple):
    """A row of a data file. `chunk`: index, char_start, char_end and the text of the document."""

    id: str
    text: str
    lang: str = "xx"
    chunk: tuple[int, int, int, str] | None = None


def digest(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def vector_of(text: str, width: int = 8) -> npt.NDArray[np.float32]:
    """A vector of norm 1, the same for the same text."""
    vector = np.random.default_rng(int.from_bytes(digest(text)[:4], "little")).standard_normal(width).astype(np.float32)
    return vector / np.linalg.norm(vector)


@dataclass
class Nights:
    """One line of an output, which grows by a snapshot a night."""

    output: Path
    line: str = "line"
    fingerprint: str = "fingerprint"
    forms: str = "8:float16"
    kept: str = "lang"  # name of the kept column
    rejects: dict[str, int] = field(default_factory=dict)  # rows rejected by the scan of each object version

    def publish(self, files: Mapping[str, Sequence[Row]], sources: Collection[str] = (), rejected: Collection[Rejected] = ()) -> Snapshot:
        """A snapshot of these data files. A name that was published before keeps its rows, which must be the same."""
        newest = newest_of_line(STORE, str(self.output), self.line, limited=False)
        draft = Draft(
            parent=newest.number if newest else 0,
            line=self.line,
            fingerprint=self.fingerprint,
            sources=["in"],
            limit=None,
            run_key=None,
            provenance={"vectors": self.forms} | int8_ranges_to_text(ranges_of(parse_forms(self.forms.split(",")))),
        )
        listed = [self.write(name, rows) for name, rows in sorted(files.items())]
        versions = [SourceVersion(name, f"{name}.jsonl", 1, self.rejects.get(name, 0)) for name in sources]
        return publish_snapshot(STORE, str(self.output), draft, listed, versions, rejected, lambda parent, following: None)

    def write(self, name: str, rows: Sequence[Row]) -> DataFile:
        data = parquet_bytes(table_of(rows, parse_forms(self.forms.split(",")), self.kept), {})
        uri = paths.data_uri(str(self.output), self.fingerprint, name)
        assert STORE.create(uri, data) or STORE.read(uri) == data
        return DataFile(name, len(rows), len({row.id for row in rows}), len(rows), len(data), sha256(data).hexdigest(), b"")

    def reject(self, version: str, reasons: Mapping[str, str]) -> None:
        """Rejects of the scan of an object version: reasons by id."""
        rows = [{"id": name, "source": "", "row": row, "reason": reasons[name], "detail": ""} for row, name in enumerate(reasons)]
        table = pa.Table.from_pylist(rows, schema=schema.rejects_schema(pa.string()))
        STORE.put(paths.rejects_uri(str(self.output), self.line, version), parquet_bytes(table, {}))
        self.rejects[version] = len(rows)

    def scan(self, version: str, texts: Mapping[str, str]) -> None:
        """The key file of an object version: texts by id."""
        count = len(texts)
        keys = Keys(
            ids=id_hashes(pa.chunked_array([list(texts)], pa.string())),
            contents=content_hashes(texts.values()),
            kept=np.zeros((count, 2), np.uint64),
            rows=np.arange(count),
            owners=np.zeros(count, np.int32),
        )
        scan = Scan(
            Layout([count], [0], [], pa.schema([])),
            keys,
            schema.empty_table(schema.rejects_schema(pa.string())),
            ScanCounts(count, count, 0, 0),
        )
        write_scan(STORE, str(self.output), self.line, version, scan)


def table_of(rows: Sequence[Row], forms: tuple[VectorForm, ...], kept: str = "lang") -> pa.Table:
    """The rows as in a data file. Datasets of chunks have a chunk in every row."""
    columns = {"id": pa.array([row.id for row in rows], pa.string()), kept: pa.array([row.lang for row in rows], pa.string())}
    fields = [pa.field(name, pa.string()) for name in columns]
    chunks = [(*row.chunk[:3], digest(row.chunk[3])) for row in rows if row.chunk]
    if chunks:
        columns |= {item.name: pa.array([chunk[at] for chunk in chunks], item.type) for at, item in enumerate(schema.CHUNKS)}
        fields += schema.CHUNKS
    columns |= {"n_tokens": pa.array([1] * len(rows), pa.int32()), "truncated": pa.array([False] * len(rows))}
    columns["content_hash"] = pa.array([digest(row.text) for row in rows], pa.binary(16))
    full = np.array([vector_of(row.text) for row in rows], np.float32).reshape(-1, 8)
    ranges = ranges_of(forms)
    vectors = {name: encode_vectors(full, form, ranges.get(name)) for name, form in vector_columns(forms).items()}
    return data_table(pa.table(columns, pa.schema([*fields, *schema.TAIL])), vectors, forms)


def ranges_of(forms: tuple[VectorForm, ...]) -> dict[str, npt.NDArray[np.float32]]:
    """The int8 ranges by column: from -1 to 1."""
    return {
        name: np.array([[-1], [1]], np.float32).repeat(form.dim, axis=1)
        for name, form in vector_columns(forms).items()
        if form.dtype == "int8"
    }
