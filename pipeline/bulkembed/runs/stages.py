"""The whole path of one shard: prepare, embed, publish. The stages are plain functions from a shard to its receipt, without Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from hashlib import sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.dataset import parquet_file
from bulkembed.dataset.receipts import Ledger
from bulkembed.embedding.embedder import Embedder
from bulkembed.records import Counts, Documents, Embedded, Prepared, Receipt, RejectReason, Sampled
from bulkembed.runs.job import Job
from bulkembed.shards import Shard
from bulkembed.source import reader
from bulkembed.storage.retry import retries_taken
from bulkembed.text import batches, long_documents
from bulkembed.vectors import matryoshka, quantize


def run_shard(shard: Shard, job: Job, embedder: Embedder, compute_lock: AbstractContextManager[object] | None = None) -> Receipt:
    """Reads, embeds and publishes a shard. `compute_lock` is held while something is computed, not while the store is waited for.

    Shards of one process therefore wait for the store side by side, and compute one after the other. Python code that runs beside an engine
    on the CPU would take the interpreter's lock and a core from it, and both of the engine's threads would wait."""
    documents, seconds = read(shard, job)
    with compute_lock or nullcontext():
        embedded = embed(tokenize(shard, documents, job, seconds), job, embedder)
        data, int8_counts = encode(embedded, job)
    return write(embedded, data, int8_counts, job)


def prepare(shard: Shard, job: Job) -> Prepared:
    """Reads a shard's documents and turns them into token ids."""
    documents, seconds = read(shard, job)
    return tokenize(shard, documents, job, seconds)


def publish(embedded: Embedded, job: Job) -> Receipt:
    """Writes the data of a shard, then its rejects, then its receipt, which marks it as done."""
    return write(embedded, *encode(embedded, job), job)


def read(shard: Shard, job: Job) -> tuple[Documents, dict[str, float]]:
    """A shard's documents, and the seconds that reading took."""
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        return reader.read_documents(job.source_store, shard, job.recipe, job.carried), seconds


def tokenize(shard: Shard, documents: Documents, job: Job, seconds: dict[str, float]) -> Prepared:
    """Token ids of a shard's documents, by the run's policy for long ones. Adds to `seconds`.

    A document of which the model would see nothing is a reject, whatever the policy is."""
    key = job.recipe.vector_key
    with timed(seconds, "tokenize"):
        pieces = long_documents.split_documents(documents, key, job.tokenizer)
        prepared = long_documents.prepare_rows(shard, documents, pieces, key.long_documents)
        reasons = long_documents.empty_reasons(prepared, key, job.tokenizer)
        if key.long_documents == "reject":
            reasons |= long_documents.too_long_reasons(prepared, job.tokenizer.max_tokens)
        prepared = long_documents.move_to_rejects(prepared, reasons)
    return replace(prepared, seconds=seconds, counts=prepared.counts + Counts(retries=retries_taken()))


def embed(prepared: Prepared, job: Job, embedder: Embedder) -> Embedded:
    """Full-width vectors of a prepared shard, in source order.

    A document goes to the rejects if the engine makes no usable vector of it, neither in a batch nor alone."""
    started = time.time()
    with timed(prepared.seconds, "embed"):
        vectors = full_vectors(prepared, job, embedder)
        dims = [form.dim for form in job.columns.values()]
        bad = np.flatnonzero(~matryoshka.usable_rows(vectors, dims))
        for row in bad:
            vectors[row] = full_vectors(long_documents.select_rows(prepared, np.array([row])), job, embedder)[0]
        hopeless = bad[~matryoshka.usable_rows(vectors[bad], dims)]
        detail = f"the engine's vector, or its first {min(dims)} components, are zero or not finite"
        reasons: dict[int, tuple[RejectReason, str]] = {int(prepared.numbers[row]): ("bad_vector", detail) for row in hopeless}
        vectors = vectors[~np.isin(prepared.numbers, list(reasons))]
    return Embedded(long_documents.move_to_rejects(prepared, reasons), vectors, embedder.version, started, time.time())


def full_vectors(prepared: Prepared, job: Job, embedder: Embedder) -> npt.NDArray[np.float32]:
    """Vectors of shape (rows, width). A row of several pieces gets their weighted sum; `matryoshka.cut_vectors` scales it."""
    lengths, owners, weights = prepared.tokens.lengths, prepared.owners, prepared.weights.astype(np.float32)
    # What a document of one piece gets must not depend on the others of its shard, down to the sign of a zero: -0.0 + x is x.
    vectors = np.full((prepared.rows.num_rows, job.model.width), -0.0, np.float32)
    one_piece_each = len(owners) == len(vectors)
    for batch in batches.pack_batches(lengths, job.cfg.engine.call_tokens):
        embedded = embedder.embed([prepared.tokens.of(int(piece)) for piece in batch])
        if one_piece_each:
            vectors[owners[batch]] = embedded
        else:
            np.add.at(vectors, owners[batch], embedded * weights[batch, None])
    return vectors


def encode(embedded: Embedded, job: Job) -> tuple[bytes, Counts]:
    """The bytes of the data file, and how many of its int8 components were clipped."""
    footer = job.provenance | {"engine": embedded.engine}
    vectors, int8_ranges, columns, clipped = embedded.vectors, job.int8_ranges, {}, 0
    with timed(embedded.prepared.seconds, "encode"):
        for name, form in job.columns.items():
            columns[name], outside = quantize.encode_counting_clipped(vectors, form, int8_ranges.get(name))
            clipped += outside
        data = parquet_file.parquet_bytes(parquet_file.data_table(embedded.prepared.rows, columns, job.recipe.row_schema.vectors), footer)
    components = len(vectors) * sum(form.dim for form in job.int8_columns.values())
    return data, Counts(int8_components=components, clipped=clipped)


def write(embedded: Embedded, data: bytes, int8_counts: Counts, job: Job) -> Receipt:
    """Writes data, rejects and receipt. `int8_counts`: of clipped components."""
    prepared, ledger = embedded.prepared, job.ledger
    shard, seconds = prepared.shard, prepared.seconds
    provenance = job.short_provenance | {"engine": embedded.engine}
    with timed(seconds, "write"):
        data, footer = publish_data(ledger, shard.id, data)
        if prepared.rejects.num_rows:
            ledger.store.put(ledger.rejects_uri(shard.id), parquet_file.parquet_bytes(prepared.rejects, provenance))
    receipt = Receipt(
        shard=shard.id,
        source=shard.source,
        counts=prepared.counts + int8_counts + Counts(retries=retries_taken()),
        data_bytes=len(data),
        data_sha256=sha256(data).hexdigest(),
        seconds={name: round(spent, 6) for name, spent in seconds.items()},
        embed_started=embedded.started,
        embed_finished=embedded.finished,
        provenance={name: footer[name] for name in provenance},
    )
    ledger.write_receipt(receipt)
    return receipt


def sample(shard: Shard, job: Job, embedder: Embedder) -> Sampled:
    """What a shard shows of the ranges of int8 columns. Publishes nothing."""
    vectors = embed(prepare(shard, job), job, embedder).vectors
    int8_ranges = {name: quantize.measure_int8_ranges(vectors, form.dim) for name, form in job.int8_columns.items()} if len(vectors) else {}
    return Sampled(shard.rows, len(vectors), int8_ranges)


def give_up(shard: Shard, job: Job, reason: str) -> Receipt:
    """Publishes a shard whose documents all go to the rejects, since the engine does not survive them."""
    prepared = prepare(shard, job)
    prepared = long_documents.move_to_rejects(prepared, {int(number): ("engine_lost", reason) for number in prepared.numbers})
    now = time.time()
    return publish(Embedded(prepared, np.empty((0, job.model.width), np.float32), "none", now, now), job)


def publish_data(ledger: Ledger, shard_id: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Creates a data file. Returns the bytes that are published, and their footer.

    A published file is never changed. Where another attempt was first, its file has the same rows and stays. Only a file that is broken,
    or was made for something else, is replaced."""
    uri = ledger.data_uri(shard_id)
    if not ledger.store.create(uri, data):
        published = ledger.store.read(uri)
        if parquet_file.alike(published, data):
            data = published
        else:
            ledger.store.put(uri, data)
    return data, parquet_file.footer_of(pq.read_schema(pa.BufferReader(data)))


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the wall time of the block to `seconds[name]`."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
