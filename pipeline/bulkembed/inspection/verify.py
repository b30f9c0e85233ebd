"""Re-reads a finished dataset and says everything that is wrong with it; and embeds some of it again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset import parquet_file, vector_columns
from bulkembed.dataset.paths import current_uri
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot, current_differs
from bulkembed.embedding.embedder import Embedder
from bulkembed.errors import StorageError
from bulkembed.records import Counts, Receipt, Shard, ShardId, VectorForm
from bulkembed.runs import calibration, stages
from bulkembed.runs.job import Job
from bulkembed.source.objects import SourceObject
from bulkembed.storage.retry import CORRUPT, describe
from bulkembed.storage.store import Store
from bulkembed.text import long_documents
from bulkembed.vectors import matryoshka, quantize

# How far norms may be from 1. A norm of int8 says little: with the ranges of one document it was off by 0.03 and the cosine was 0, with
# those of 2,048 single documents were off by 0.15. What is clipped is counted instead.
NORM_TOLERANCE = {"float32": 1e-3, "float16": 1e-3, "int8": 0.3, "binary": 1e-3}
# Least cosine of a row's vector and the same row embedded again. A bit of a binary vector flips where a component is near 0.
ALIKE = {"float32": 0.999, "float16": 0.999, "int8": 0.98, "binary": 0.85}
SAMPLE_SHARDS = 16  # that a sample is taken from: each is read and tokenized whole


def verify(store: Store, ledger: Ledger, snapshot: Snapshot) -> Iterator[str]:
    """Problems of a dataset, one line each; none means that it is whole.

    Checks that every shard's files are there and are the bytes that its receipt stands for, that rows agree with
    the receipts, that all schemas and footers are alike, that every vector is finite and has its norm, and that
    current.txt lists these files."""
    forms = vector_columns.forms_of(snapshot.provenance)
    present = set(ledger.done())
    first: pa.Schema | None = None
    total = Counts()
    for shard_id in snapshot.shards:
        if shard_id not in present:
            yield f"{ledger.receipt_uri(shard_id)}: missing"
            continue
        try:
            receipt = ledger.read_receipt(shard_id)
        except StorageError as error:
            yield str(error)
            continue
        total += receipt.counts
        uri = ledger.data_uri(shard_id)
        try:
            data = store.read(uri)
            if sha256(data).hexdigest() != receipt.data_sha256:
                yield f"{uri}: its bytes are not those that its receipt was written for (sha256)"
            table = schema.table_of(data)
        except FileNotFoundError:
            yield f"{uri}: missing"
            continue
        except CORRUPT as error:
            yield f"{uri}: unreadable: {describe(error)}"
            continue
        first = first or table.schema
        yield from (f"{uri}: {problem}" for problem in file_problems(table, first, receipt, snapshot, forms))
        if receipt.counts.rejects:
            yield from reject_problems(store, ledger.rejects_uri(shard_id), receipt)
    if len(present.intersection(snapshot.shards)) == len(snapshot.shards) and total.documents != snapshot.documents:
        yield f"snapshot {snapshot.number}: says {snapshot.documents} documents, its receipts {total.documents}"
    if current_differs(store, ledger.output, snapshot):
        yield f"{current_uri(ledger.output)}: does not list the files of snapshot {snapshot.number}; run the job again, which writes it"
    if warning := calibration.clipped_warning(total):
        yield f"snapshot {snapshot.number}: {warning}"


def file_problems(table: pa.Table, first: pa.Schema, receipt: Receipt, snapshot: Snapshot, forms: dict[str, VectorForm]) -> Iterator[str]:
    if table.schema.remove_metadata() != first.remove_metadata():
        yield "its columns differ from those of the first file"
    footer, wanted = parquet_file.footer_of(table.schema), parquet_file.footer_of(first)
    for name, value in receipt.provenance.items():
        if footer.get(name) != value:
            yield f"footer says {name} = {footer.get(name)!r}, its receipt {value!r}"
    for name in sorted((footer.keys() | wanted.keys()) - set(parquet_file.VERSIONS)):
        if footer.get(name) != wanted.get(name):
            yield f"footer differs from that of the first file in {name}"
    tokens = int(np.sum(table["n_tokens"].to_numpy(), dtype=np.int64))
    if table.num_rows != receipt.counts.vectors:
        yield f"{table.num_rows} rows, its receipt says {receipt.counts.vectors}"
    elif tokens != receipt.counts.tokens:
        yield f"{tokens} tokens, its receipt says {receipt.counts.tokens}"
    if table["id"].null_count:
        yield f"{table['id'].null_count} ids are null"
    ranges = quantize.int8_ranges_from_text(snapshot.provenance)
    for name, form in forms.items():
        norms = np.linalg.norm(quantize.decode_vectors(vector_columns.stored_values(table, name), form, ranges.get(name)), axis=1)
        bad = int(np.count_nonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE[form.dtype])))
        if bad:
            yield f"{bad} vectors of column {name} are not finite and of norm 1"


def reject_problems(store: Store, uri: str, receipt: Receipt) -> Iterator[str]:
    try:
        with store.open(uri) as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    except FileNotFoundError:
        yield f"{uri}: missing"
        return
    except CORRUPT as error:
        yield f"{uri}: unreadable: {describe(error)}"
        return
    if rows != receipt.counts.rejects:
        yield f"{uri}: {rows} rows, its receipt says {receipt.counts.rejects}"


@dataclass(frozen=True)
class Resample:
    """Rows of a dataset beside the same rows embedded again."""

    rows: int
    cosines: dict[str, npt.NDArray[np.float64]]  # of each vector column
    problems: list[str]


def resample(job: Job, snapshot: Snapshot, objects: list[SourceObject], embedder: Embedder, rows: int, seed: int) -> Resample:
    """Embeds `rows` random rows of the dataset again, from the source, and compares. Of at most SAMPLE_SHARDS shards."""
    random = np.random.default_rng(seed)
    shards = sorted(random.permutation(snapshot.shards)[:SAMPLE_SHARDS].tolist())
    tables = {shard: schema.table_of(job.store.read(job.ledger.data_uri(shard))) for shard in shards}
    ends = np.cumsum([table.num_rows for table in tables.values()])
    picked = np.sort(random.choice(int(ends[-1]), min(rows, int(ends[-1])), replace=False))
    known = {item.id: item for item in objects}
    cosines: dict[str, list[npt.NDArray[np.float64]]] = {name: [] for name in job.columns}
    problems: list[str] = []
    for (shard_id, table), start, end in zip(tables.items(), [0, *ends[:-1]], ends, strict=True):
        mine = picked[(picked >= start) & (picked < end)] - start
        item = known.get(ShardId.parse(shard_id).object_id)
        if item is None:
            problems.append(f"{shard_id}: its source object is not there any more, or has changed: cannot be embedded again")
        elif len(mine):
            found = compared(job, shard_of(shard_id, item), table, mine, embedder)
            problems += found.problems
            for name, values in found.cosines.items():
                cosines[name].append(values)
    joined = {name: np.concatenate([*found, np.empty(0, np.float64)]) for name, found in cosines.items()}
    for name, form in job.columns.items():
        low = int(np.count_nonzero(~(joined[name] >= ALIKE[form.dtype])))
        if low:
            problems.append(f"{low} vectors of column {name} are not those of their documents (cosine below {ALIKE[form.dtype]})")
    return Resample(len(joined["embedding"]), joined, problems)


def shard_of(shard_id: str, item: SourceObject) -> Shard:
    _, start, stop, total = ShardId.parse(shard_id)
    return Shard(item.id, item.uri, item.version, item.format, start, stop, total, offset=0, skip=start)


def compared(job: Job, shard: Shard, table: pa.Table, rows: npt.NDArray[np.int64], embedder: Embedder) -> Resample:
    prepared = stages.prepare(shard, job)
    keys = [name for name in ("id", "chunk_index", "n_tokens", "content_hash") if name in table.column_names]
    if not prepared.rows.select(keys).cast(table.select(keys).schema).equals(table.select(keys)):
        return Resample(0, {}, [f"{shard.id}: its rows are not those that the source gives"])
    vectors = stages.full_vectors(long_documents.select_rows(prepared, rows), job, embedder)
    found = {}
    for name, form in job.columns.items():
        ranges = job.ranges.get(name)
        again = quantize.encode_vectors(vectors, form, ranges)
        stored = vector_columns.stored_values(table.take(pa.array(rows)), name)
        found[name] = matryoshka.cosines(quantize.decode_vectors(stored, form, ranges), quantize.decode_vectors(again, form, ranges))
    return Resample(len(rows), found, [])
