"""Re-reads a finished dataset and says everything that is wrong with it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import sha256
from itertools import chain
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from bulkembed import schema
from bulkembed.dataset import parquet_file, vector_columns
from bulkembed.dataset.current_txt import current_differs
from bulkembed.dataset.manifests import DataFile, read_files
from bulkembed.dataset.paths import current_uri
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.repair import Problem
from bulkembed.dataset.snapshots import Snapshot, View
from bulkembed.errors import StorageError
from bulkembed.inspection.key_checks import Damaged, key_problems, read_rejects, rejects_that_stand, rows_of, stale
from bulkembed.inspection.record_checks import RESTORE, record_problems, with_errors
from bulkembed.records import Counts, Receipt, VectorForm
from bulkembed.row_keys import HASH_BYTES, hashes_of_column
from bulkembed.runs import calibration
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store
from bulkembed.vectors import quantize

PUBLISHING_SECONDS = 0.5  # a run writes the snapshot, and current.txt a moment later
# How far norms may be from 1. A norm of int8 says little: with the ranges of one document it was off by 0.03 and the cosine was 0, with
# those of 2,048 single documents were off by 0.15. What is clipped is counted instead.
NORM_TOLERANCE = {"float32": 1e-3, "float16": 1e-3, "int8": 0.3, "binary": 1e-3}


def verify(store: Store, ledger: Ledger, snapshot: Snapshot) -> Iterator[Problem]:
    """Problems of a dataset, one line each; none means that it is whole.

    It reads every file of the snapshot, and compares its bytes and rows with the manifest and the receipts, and schemas and footers
    with each other. Every vector must be finite and have its norm. current.txt must list exactly these files."""
    try:
        forms = vector_columns.forms_of(snapshot.provenance)
        quantize.int8_ranges_from_text(snapshot.provenance)
    except (KeyError, ValueError) as error:
        yield Problem(f"snapshot {snapshot.number}: its record does not say what its vectors are: {type(error).__name__}: {error}")
        return
    dataset, told = Dataset(ledger, snapshot, forms), set[str]()
    view = View(store, ledger.output)
    looks = (dataset.check_all(), key_problems(store, ledger.output, snapshot), snapshot_problems(view, snapshot, dataset))
    for problem in chain(*map(with_errors, looks), record_problems(view, snapshot)):
        if problem.text not in told:  # several looks read the manifest
            told.add(problem.text)
            yield problem


@dataclass
class Dataset:
    """A snapshot whose files are checked one after the other."""

    ledger: Ledger
    snapshot: Snapshot
    forms: dict[str, VectorForm]
    total: Counts = field(default_factory=Counts)  # of the receipts so far
    listed: tuple[int, int] = (0, 0)  # files and documents so far
    first: pa.Schema | None = None  # of the first file that could be read

    def check_all(self) -> Iterator[Problem]:
        for file in read_files(self.ledger.store, self.ledger.output, self.snapshot.manifest):
            yield from self.check(file)
        if self.listed != (self.snapshot.files, self.snapshot.documents):
            says = f"says {self.snapshot.files} files with {self.snapshot.documents} documents"
            lists = f"its manifest lists {self.listed[0]} with {self.listed[1]}"
            yield Problem(f"snapshot {self.snapshot.number}: {says}, {lists}; {RESTORE}")

    def check(self, file: DataFile) -> Iterator[Problem]:
        ledger, name = self.ledger, file.name
        self.listed = self.listed[0] + 1, self.listed[1] + file.documents
        table, wrong = self.read(file)
        undone = (ledger.receipt_uri(name), ledger.rejects_uri(name), ledger.data_uri(name)) if wrong.must_go else ()
        yield from (Problem(text, undone) for text in wrong.texts)
        again = self.made_again(file, table) if table is not None and not wrong.texts else None
        receipt, problems = self.receipt_of(file)
        yield from (Problem(f"{ledger.receipt_uri(name)}: {text}", undone, again) for text in problems)
        receipt = again if problems and again is not None else receipt  # the right one is the measure of the rows
        if receipt is None:
            return
        self.total += receipt.counts
        if table is not None:
            first = self.first or table.schema
            self.first = first if again else self.first  # a damaged file is no measure for the others
            found = list(type_problems(table, self.forms)) or file_problems(table, first, receipt, self.snapshot, self.forms)
            yield from (Problem(f"{ledger.data_uri(name)}: {text}", undone) for text in found)
        yield from self.check_rejects(receipt, undone, again)

    def check_rejects(self, receipt: Receipt, undone: tuple[str, ...], again: Receipt | None) -> Iterator[Problem]:
        """Where rejects are lost, a repair writes the receipt without them: the snapshot remembers their contents and reasons."""
        uri, counts = self.ledger.rejects_uri(receipt.shard), receipt.counts
        if not counts.rejects and receipt.shard in self.with_rejects:
            yield stale(uri)
        if not counts.rejects:
            return
        try:
            read_rejects(self.ledger.store, uri, counts.rejects, "its receipt")
        except Damaged as damaged:
            without = replace(counts, rejects=0, rows=counts.rows - counts.rejects)
            yield Problem(str(damaged), (uri,), replace(receipt, counts=without)) if again else Problem(str(damaged), undone)

    @cached_property
    def with_rejects(self) -> set[str]:
        return rejects_that_stand(self.ledger.store, self.ledger.rejects_folder)

    def read(self, file: DataFile) -> tuple[pa.Table | None, Wrong]:
        """The table of a data file, as far as it can be read, and what is wrong with its bytes."""
        uri = self.ledger.data_uri(file.name)
        try:
            data = self.ledger.store.read(uri)
        except FileNotFoundError:
            return None, Wrong([f"{uri}: missing"], must_go=True)
        except StorageError as error:
            return None, Wrong([str(error)], must_go=False)
        differs = sha256(data).hexdigest() != file.data_sha256
        texts = [f"{uri}: its bytes are not those that the snapshot lists (sha256)"] if differs else []
        try:
            return schema.table_of(data), Wrong(texts, must_go=differs)
        except CORRUPT as error:
            return None, Wrong([*texts, f"{uri}: unreadable: {describe_error(error)}"], must_go=True)

    def receipt_of(self, file: DataFile) -> tuple[Receipt | None, list[str]]:
        """The receipt of a data file, and what is wrong with it."""
        uri = self.ledger.receipt_uri(file.name)
        try:
            receipt = self.ledger.read_receipt(file.name)
        except FileNotFoundError:
            return None, ["missing"]
        except StorageError as error:
            return None, [str(error).removeprefix(f"{uri}: ")]
        return receipt, list(receipt_problems(receipt, file))

    def made_again(self, file: DataFile, table: pa.Table) -> Receipt:
        """A receipt of a data file that is right. What only its run knew is left at 0: times, repeated ids, tokens that were cut off."""
        footer, rejects = parquet_file.footer_of(table.schema), rows_of(self.ledger.store, self.ledger.rejects_uri(file.name))
        provenance = {name: footer[name] for name in self.snapshot.provenance if name in footer}
        truncated = int(np.sum(table["truncated"].to_numpy())) if "truncated" in table.column_names else 0
        counts = Counts(file.documents + rejects, file.documents, file.rows, rejects, tokens=file.tokens, truncated=truncated)
        return Receipt(file.name, "", counts, file.data_bytes, file.data_sha256, {}, 0.0, 0.0, provenance)


class Wrong(NamedTuple):
    """What is wrong with the bytes of a data file."""

    texts: list[str]
    must_go: bool  # they are read, and sure to be wrong


def snapshot_problems(view: View, snapshot: Snapshot, dataset: Dataset) -> Iterator[Problem]:
    """`dataset`: all of its files were checked."""
    if warning := calibration.clipped_warning(dataset.total):
        yield Problem(f"snapshot {snapshot.number}: {warning}")
    if current_lags(view, snapshot):
        text = f"{current_uri(view.output)}: does not list the files of snapshot {snapshot.number}; run the job again, which writes it"
        yield Problem(text, is_rewritten=True)


def current_lags(view: View, snapshot: Snapshot) -> bool:
    """Whether current.txt lists other files than the current snapshot, and not just because a run is between its last two writes."""
    if not current_differs(view.store, view.output, snapshot):
        return False
    time.sleep(PUBLISHING_SECONDS)
    return current_differs(view.store, view.output, snapshot)


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
