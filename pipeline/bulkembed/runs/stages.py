"""The whole path of one shard: prepare, embed, publish. Plain functions, shard in, receipt out; no Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from hashlib import blake2b, sha256

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.dataset import parquet_file
from bulkembed.dataset.receipts import Ledger
from bulkembed.embedding.embedder import Embedder
from bulkembed.records import Counts, Documents, Embedded, Prepared, Receipt, RejectReason, Sampled, Shard
from bulkembed.runs.job import Job
from bulkembed.source import reader
from bulkembed.storage.retry import retries_taken
from bulkembed.text import batches, long_documents
from bulkembed.vectors import matryoshka, quantize


def run_shard(shard: Shard, job: Job, embedder: Embedder, turn: AbstractContextManager[object] | None = None) -> Receipt:
    """`turn` is held while something is computed: shards of one process wait for the store side by side, and for its cores one
    after the other. Python beside an engine on the CPU takes the interpreter's lock and a core from it, and both its threads wait."""
    documents, seconds = read(shard, job)
    with turn or nullcontext():
        embedded = embed(tokenize(shard, documents, job, seconds), job, embedder)
        data, counted = encode(embedded, job)
    return write(embedded, data, counted, job)


def prepare(shard: Shard, job: Job) -> Prepared:
    """Reads a shard's documents and turns them into token ids."""
    documents, seconds = read(shard, job)
    return tokenize(shard, documents, job, seconds)


def publish(embedded: Embedded, job: Job) -> Receipt:
    """Writes a shard: data, then rejects, then the receipt that says it is done."""
    return write(embedded, *encode(embedded, job), job)


def read(shard: Shard, job: Job) -> tuple[Documents, dict[str, float]]:
    """A shard's documents, and the seconds that took."""
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        return reader.read_documents(job.store, shard, job.recipe, job.carried), seconds


def tokenize(shard: Shard, documents: Documents, job: Job, seconds: dict[str, float]) -> Prepared:
    key = job.recipe.vector_key
    with timed(seconds, "tokenize"):
        cut = long_documents.split_documents(documents, key, job.tokenizer)
        hashes = [blake2b(text.encode(), digest_size=16).digest() for text in documents.texts]
        prepared = long_documents.prepare_rows(shard, documents, cut, hashes, key.long_documents)
        if key.long_documents == "reject":
            prepared = long_documents.move_to_rejects(prepared, long_documents.too_long_reasons(prepared, job.tokenizer.max_tokens))
    return replace(prepared, seconds=seconds, counts=prepared.counts + Counts(retries=retries_taken()))


def embed(prepared: Prepared, job: Job, embedder: Embedder) -> Embedded:
    """Full-width vectors of a prepared shard, back in source order. A document of which the engine
    makes no vector, in company and alone, goes to the rejects."""
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
    """(rows, width). A row of several pieces gets their sum, weighted by tokens: scaling is left to `cut`."""
    lengths, owners = prepared.tokens.lengths, prepared.owners
    vectors = np.zeros((prepared.rows.num_rows, job.model.width), np.float32)
    alone = len(owners) == len(vectors)
    for batch in batches.pack_batches(lengths, job.cfg.engine.call_tokens):
        found = embedder.embed([prepared.tokens.of(int(piece)) for piece in batch])
        if alone:
            vectors[owners[batch]] = found
        else:
            np.add.at(vectors, owners[batch], found * lengths[batch, None].astype(np.float32))
    return vectors


def encode(embedded: Embedded, job: Job) -> tuple[bytes, Counts]:
    """The data file, and how many of its int8 components were clipped."""
    footer = job.provenance | {"engine": embedded.engine}
    vectors, int8_ranges, columns, clipped = embedded.vectors, job.int8_ranges, {}, 0
    with timed(embedded.prepared.seconds, "encode"):
        for name, form in job.columns.items():
            columns[name], outside = quantize.encode_counting_clipped(vectors, form, int8_ranges.get(name))
            clipped += outside
        data = parquet_file.parquet_bytes(parquet_file.data_table(embedded.prepared.rows, columns, job.recipe.row_schema.vectors), footer)
    components = len(vectors) * sum(form.dim for form in job.int8_columns.values())
    return data, Counts(int8_components=components, clipped=clipped)


def write(embedded: Embedded, data: bytes, counted: Counts, job: Job) -> Receipt:
    prepared, ledger = embedded.prepared, job.ledger
    shard, seconds = prepared.shard, prepared.seconds
    provenance = job.short_provenance | {"engine": embedded.engine}
    with timed(seconds, "write"):
        data, standing = publish_data(ledger, shard.id, data)
        if prepared.rejects.num_rows:
            ledger.store.put(ledger.rejects_uri(shard.id), parquet_file.parquet_bytes(prepared.rejects, provenance))
    receipt = Receipt(
        shard=shard.id,
        source=shard.uri,
        counts=prepared.counts + counted + Counts(retries=retries_taken()),
        data_bytes=len(data),
        data_sha256=sha256(data).hexdigest(),
        seconds={name: round(spent, 6) for name, spent in seconds.items()},
        embed_started=embedded.started,
        embed_finished=embedded.finished,
        provenance={name: standing[name] for name in provenance},
    )
    ledger.write_receipt(receipt)
    return receipt


def sample(shard: Shard, job: Job, embedder: Embedder) -> Sampled:
    """What a shard shows of the ranges of int8 columns; publishes nothing."""
    vectors = embed(prepare(shard, job), job, embedder).vectors
    found = {name: quantize.measure_int8_ranges(vectors, form.dim) for name, form in job.int8_columns.items()} if len(vectors) else {}
    return Sampled(shard.rows, len(vectors), found)


def give_up(shard: Shard, job: Job, reason: str) -> Receipt:
    """Publishes a shard whose documents all go to the rejects, since the engine does not survive them."""
    prepared = prepare(shard, job)
    prepared = long_documents.move_to_rejects(prepared, {int(number): ("engine_lost", reason) for number in prepared.numbers})
    now = time.time()
    return publish(Embedded(prepared, np.empty((0, job.model.width), np.float32), "none", now, now), job)


def publish_data(ledger: Ledger, shard_id: str, data: bytes) -> tuple[bytes, dict[str, str]]:
    """Puts a data file; returns what stands there, and its footer. Nobody changes it any more: where another
    attempt was first, its rows are the same, and stay. Only what is broken or made for something else is replaced."""
    uri = ledger.data_uri(shard_id)
    if not ledger.store.create(uri, data):
        standing = ledger.store.read(uri)
        if parquet_file.alike(standing, data):
            data = standing
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
