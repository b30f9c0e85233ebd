"""Re-reads a finished dataset and says everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset import parquet_file, vector_columns
from bulkembed.dataset.current_txt import current_differs
from bulkembed.dataset.manifests import DataFile, read_files
from bulkembed.dataset.paths import current_uri
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import StorageError
from bulkembed.records import Counts, Receipt, VectorForm
from bulkembed.row_keys import HASH_BYTES, hashes_of_column
from bulkembed.runs import calibration
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store
from bulkembed.vectors import quantize

# How far norms may be from 1. A norm of int8 says little: with the ranges of one document it was off by 0.03 and the cosine was 0, with
# those of 2,048 single documents were off by 0.15. What is clipped is counted instead.
NORM_TOLERANCE = {"float32": 1e-3, "float16": 1e-3, "int8": 0.3, "binary": 1e-3}


def verify(store: Store, ledger: Ledger, snapshot: Snapshot) -> Iterator[str]:
    """Problems of a dataset, one line each; none means that it is whole.

    It reads every file of the snapshot, and compares its bytes and rows with the manifest and the receipts, and schemas and footers
    with each other. Every vector must be finite and have its norm. current.txt must list exactly these files."""
    try:
        forms = vector_columns.forms_of(snapshot.provenance)
        quantize.int8_ranges_from_text(snapshot.provenance)
    except (KeyError, ValueError) as error:
        yield f"snapshot {snapshot.number}: its record does not say what its vectors are: {type(error).__name__}: {error}"
        return
    present = set(ledger.done())
    first: pa.Schema | None = None
    total, listed = Counts(), [0, 0]
    for file in read_files(store, ledger.output, snapshot.manifest):
        listed = [listed[0] + 1, listed[1] + file.documents]
        if file.name not in present:
            yield f"{ledger.receipt_uri(file.name)}: missing"
            continue
        try:
            receipt = ledger.read_receipt(file.name)
        except StorageError as error:
            yield str(error)
            continue
        yield from (f"{ledger.receipt_uri(file.name)}: {problem}" for problem in receipt_problems(receipt, file))
        total += receipt.counts
        uri = ledger.data_uri(file.name)
        try:
            data = store.read(uri)
            if sha256(data).hexdigest() != file.data_sha256:
                yield f"{uri}: its bytes are not those that the snapshot lists (sha256)"
            table = schema.table_of(data)
        except FileNotFoundError:
            yield f"{uri}: missing"
            continue
        except StorageError as error:
            yield str(error)
            continue
        except CORRUPT as error:
            yield f"{uri}: unreadable: {describe_error(error)}"
            continue
        first = first or table.schema
        problems = list(type_problems(table, forms)) or file_problems(table, first, receipt, snapshot, forms)
        yield from (f"{uri}: {problem}" for problem in problems)
        if receipt.counts.rejects:
            yield from reject_problems(store, ledger.rejects_uri(file.name), receipt)
    yield from snapshot_problems(store, ledger.output, snapshot, total, *listed)


def snapshot_problems(store: Store, output: str, snapshot: Snapshot, total: Counts, files: int, documents: int) -> Iterator[str]:
    """`total`: what the receipts counted. `files`, `documents`: what the manifest lists."""
    if (files, documents) != (snapshot.files, snapshot.documents):
        says = f"says {snapshot.files} files with {snapshot.documents} documents"
        yield f"snapshot {snapshot.number}: {says}, its manifest lists {files} with {documents}"
    if current_differs(store, output, snapshot):
        yield f"{current_uri(output)}: does not list the files of snapshot {snapshot.number}; run the job again, which writes it"
    if warning := calibration.clipped_warning(total):
        yield f"snapshot {snapshot.number}: {warning}"


def receipt_problems(receipt: Receipt, file: DataFile) -> Iterator[str]:
    """Where a receipt and the manifest of the snapshot differ about a data file."""
    counts = receipt.counts
    pairs = {
        "rows": (counts.vectors, file.rows),
        "documents": (counts.documents, file.documents),
        "tokens": (counts.tokens, file.tokens),
        "bytes": (receipt.data_bytes, file.data_bytes),
        "sha256": (receipt.data_sha256, file.data_sha256),
    }
    for name, (said, listed) in pairs.items():
        if said != listed:
            yield f"{name}: {said}, but the snapshot lists {listed}"


def type_problems(table: pa.Table, forms: dict[str, VectorForm]) -> Iterator[str]:
    """Columns without which nothing more can be said of a file: those that are missing, or have another type."""
    wanted = {"id": None, "n_tokens": pa.int32()}
    if "chunk_index" in table.column_names:
        wanted |= {"chunk_index": pa.int32(), "document_hash": pa.binary(HASH_BYTES)}
    for name, kind in (wanted | {name: vector_columns.vector_type(form) for name, form in forms.items()}).items():
        if name not in table.column_names:
            yield f"column {name} is missing"
        elif kind is not None and shape_of(table.schema.field(name).type) != shape_of(kind):
            yield f"column {name} has type {table.schema.field(name).type}, not {kind}"


def shape_of(kind: pa.DataType) -> object:
    """A type without the name and the nulls of a list's elements, which libraries write differently."""
    return (kind.list_size, kind.value_type) if pa.types.is_fixed_size_list(kind) else kind


def file_problems(table: pa.Table, first: pa.Schema, receipt: Receipt, snapshot: Snapshot, forms: dict[str, VectorForm]) -> Iterator[str]:
    if table.schema.remove_metadata() != first.remove_metadata():
        yield "its columns differ from those of the first file"
    footer, first_footer = parquet_file.footer_of(table.schema), parquet_file.footer_of(first)
    for name, value in receipt.provenance.items():
        if footer.get(name) != value:
            yield f"footer says {name} = {footer.get(name)!r}, its receipt {value!r}"
    for name in sorted((footer.keys() | first_footer.keys()) - set(parquet_file.INFORMATION)):
        if footer.get(name) != first_footer.get(name):
            yield f"footer differs from that of the first file in {name}"
    tokens = int(np.sum(table["n_tokens"].to_numpy(), dtype=np.int64))
    if table.num_rows != receipt.counts.vectors:
        yield f"{table.num_rows} rows, its receipt says {receipt.counts.vectors}"
    elif tokens != receipt.counts.tokens:
        yield f"{tokens} tokens, its receipt says {receipt.counts.tokens}"
    if "chunk_index" in table.column_names and (torn := torn_chunks(table)):
        yield f"{torn} chunks do not follow the chunk before them in their document"
    if table["id"].null_count:
        yield f"{table['id'].null_count} ids are null"
    ranges = quantize.int8_ranges_from_text(snapshot.provenance)
    for name, form in forms.items():
        with np.errstate(all="ignore"):  # damaged vectors may hold any number
            norms = np.linalg.norm(quantize.decode_vectors(vector_columns.stored_values(table, name), form, ranges.get(name)), axis=1)
        bad = int(np.count_nonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE[form.dtype])))
        if bad:
            yield f"{bad} vectors of column {name} are not finite and of norm 1"


def torn_chunks(table: pa.Table) -> int:
    """How many rows neither begin a document nor continue the one of the row before."""
    index, documents = table["chunk_index"].to_numpy(), hashes_of_column(table["document_hash"])
    follows = np.zeros(len(index), np.bool_)
    follows[1:] = (np.diff(index) == 1) & (documents[1:] == documents[:-1]).all(axis=1)
    return int(np.count_nonzero((index != 0) & ~follows))


def reject_problems(store: Store, uri: str, receipt: Receipt) -> Iterator[str]:
    try:
        with store.open(uri) as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    except FileNotFoundError:
        yield f"{uri}: missing"
        return
    except CORRUPT as error:
        yield f"{uri}: unreadable: {describe_error(error)}"
        return
    if rows != receipt.counts.rejects:
        yield f"{uri}: {rows} rows, its receipt says {receipt.counts.rejects}"
