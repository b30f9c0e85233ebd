"""The whole path of one shard: prepare, embed, publish. Plain functions, shard in, receipt out; no Ray."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
import pyarrow as pa

from pipeline import bucketing, matryoshka, model, reader, writer
from pipeline.config import RunConfig
from pipeline.embedder import Embedder
from pipeline.ledger import Ledger
from pipeline.records import Embedded, Model, Prepared, Receipt, Shard
from pipeline.storage import Store
from pipeline.tokenizer import Tokenizer


@dataclass(frozen=True)
class Job:
    """A configuration with everything that had to be looked up; the same for every shard of a run."""

    cfg: RunConfig  # resolved: dims, max_tokens and prompt are set
    model: Model
    fingerprint: str
    carried: pa.Schema  # of the id and the kept columns
    provenance: dict[str, str]

    @property
    def store(self) -> Store:
        return Store(self.cfg.storage)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.cfg.output, self.fingerprint)


def run_shard(shard: Shard, job: Job, embedder: Embedder) -> Receipt:
    return publish(embed(prepare(shard, job), job, embedder), job, embedder.version)


def prepare(shard: Shard, job: Job) -> Prepared:
    """Reads a shard's documents and turns them into token ids."""
    seconds: dict[str, float] = {}
    with timed(seconds, "read"):
        documents = reader.read(job.store, shard, job.cfg, job.carried)
    with timed(seconds, "tokenize"):
        tokens = tokenizer(job.model, job.cfg.max_tokens or 0).encode(documents.texts, job.cfg.prompt or "")
        hashes = [blake2b(text.encode(), digest_size=16).digest() for text in documents.texts]
    rows = documents.rows
    for name, column in (
        ("n_tokens", pa.array(tokens.lengths, pa.int32())),
        ("truncated", pa.array(tokens.truncated, pa.bool_())),
        ("content_hash", pa.array(hashes, pa.binary(16))),
    ):
        rows = rows.append_column(name, column)
    return Prepared(shard, rows, tokens, documents.rejects, documents.repeated_ids, seconds)


def embed(prepared: Prepared, job: Job, embedder: Embedder) -> Embedded:
    """Full-width vectors of a prepared shard, back in source order."""
    seconds = dict(prepared.seconds)
    started = time.time()
    vectors = np.empty((prepared.rows.num_rows, job.model.width), np.float32)
    with timed(seconds, "embed"):
        for batch in bucketing.pack(prepared.tokens.lengths, job.cfg.engine.call_tokens):
            vectors[batch] = embedder.embed([prepared.tokens.of(int(document)) for document in batch])
    return Embedded(prepared.shard, prepared.rows, vectors, prepared.rejects, prepared.repeated_ids, seconds, started, time.time())


def publish(embedded: Embedded, job: Job, engine_version: str) -> Receipt:
    """Writes a shard: data, then rejects, then the receipt that says it is done."""
    cfg, ledger, shard, seconds = job.cfg, job.ledger, embedded.shard, dict(embedded.seconds)
    dims = cfg.dims or ()
    provenance = job.provenance | {"engine": engine_version}
    with timed(seconds, "encode"):
        cut = {dim: matryoshka.cut(embedded.vectors, dim, cfg.dtype) for dim in dims}
        data = writer.parquet_bytes(writer.data_table(embedded.rows, cut, dims, cfg.dtype), provenance)
    with timed(seconds, "write"):
        ledger.store.put(ledger.data(shard.id), data)
        if embedded.rejects.num_rows:
            ledger.store.put(ledger.rejects(shard.id), writer.parquet_bytes(embedded.rejects, provenance))
    receipt = Receipt(
        shard=shard.id,
        source=shard.uri,
        rows=shard.rows,
        documents=embedded.rows.num_rows,
        rejects=embedded.rejects.num_rows,
        repeated_ids=embedded.repeated_ids,
        tokens=int(np.sum(embedded.rows["n_tokens"].to_numpy(), dtype=np.int64)),
        truncated=int(np.count_nonzero(embedded.rows["truncated"].to_numpy())),
        data_bytes=len(data),
        seconds={name: round(spent, 6) for name, spent in seconds.items()},
        embed_started=embedded.started,
        embed_finished=embedded.finished,
        provenance=provenance,
    )
    ledger.write_receipt(receipt)
    return receipt


@lru_cache(maxsize=2)
def tokenizer(described: Model, max_tokens: int) -> Tokenizer:
    """Loaded once a process."""
    folder = model.locate(described.name, described.revision, weights=False)
    return Tokenizer(str(folder / "tokenizer.json"), max_tokens, described.end_token)


@contextmanager
def timed(seconds: dict[str, float], name: str) -> Iterator[None]:
    """Adds the wall time of the block to `seconds[name]`."""
    started = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - started
