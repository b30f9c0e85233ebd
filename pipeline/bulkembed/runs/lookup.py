"""A configuration -> the job and what is left to do: the model, the source and the output are looked up, and nothing is written."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

import orjson

from bulkembed import __version__
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.embedding import model_files
from bulkembed.errors import ConfigError, SourceError, StorageError
from bulkembed.records import Model
from bulkembed.runs import calibration, publication
from bulkembed.runs.calibration import Int8Ranges
from bulkembed.runs.job import Job, load_tokenizer
from bulkembed.source import columns, planning
from bulkembed.source.objects import SourceListing, source_listing
from bulkembed.source.overlap import refuse_linked_output, refuse_overlap
from bulkembed.source.planning import Plan
from bulkembed.storage.store import Store
from bulkembed.vectors import quantize

HASHED_IN_FOOTERS = ("tokenizer.json", ".safetensors")


def open_job(cfg: RunConfig) -> tuple[Job, Plan]:
    """Looks up the model, the source and what is done. Writes nothing; raises before any work."""
    store = Store(cfg.storage)
    refuse_overlap(store, cfg.source, cfg.output)
    described = model_files.describe(cfg.model, cfg.revision)
    cfg = begun(cfg, cfg.resolve(described), described, store)
    limit = cfg.chunk_tokens or cfg.max_tokens or 0
    tokens = load_tokenizer(described, limit)  # refuses a tokenizer that loses the end token
    if tokens.count(cfg.prompt or "") * 2 > tokens.room:
        raise ConfigError(f"prompt: takes more than half of the {limit} tokens of a document")
    with reading(cfg.output):
        standing = calibration.standing(cfg, described, store)
    try:
        listing = source_listing(store, cfg.source)
        refuse_linked_output(listing.links, cfg.output)
    except StorageError as error:
        raise SourceError(f"source: {error}") from error
    job, plan = opened(cfg, described, listing, standing if standing is not None and standing.final else None)
    if standing is not None and not standing.final and standing.hold(plan.pending):
        return opened(cfg, described, listing, standing)
    return job, plan


def opened(cfg: RunConfig, described: Model, listing: SourceListing, ranges: Int8Ranges | None) -> tuple[Job, Plan]:
    """The job with these int8 ranges, and what is left to do; without ranges nothing of int8 columns is done."""
    fingerprint = cfg.fingerprint(described, ranges.texts if ranges is not None else None)
    ledger = Ledger(Store(cfg.storage), cfg.output, fingerprint)
    with reading(cfg.output):
        done, known = ledger.done(), ledger.read_carried_schema()
    try:
        carried = known or columns.carried_schema(ledger.store, listing.objects, cfg)
    except StorageError as error:
        raise SourceError(f"source: {error}") from error
    job = Job(cfg, described, fingerprint, carried, provenance(cfg, described, fingerprint), {})
    if ranges is not None:
        job = calibration.with_ranges(job, ranges)
    return job, planned(job, listing, done)


def planned(job: Job, listing: SourceListing, done: list[str]) -> Plan:
    cfg = job.cfg
    most_rows = max(1, min(cfg.shards.max_rows, (cfg.shards.memory_mib << 20) // (job.model.width * 4)))
    check = partial(columns.require_columns, cfg)
    plan = planning.plan(job.store, listing.objects, done, most_rows, cfg.limit, check, cfg.text_columns, cfg.shards.text_mib << 20)
    plan = replace(plan, failures=[*listing.failures, *plan.failures], listing=listing)
    if not (plan.done or plan.pending or plan.failures):
        raise columns.no_rows(cfg.source)
    return publication.guarded(job, plan)


def begun(asked: RunConfig, resolved: RunConfig, described: Model, store: Store) -> RunConfig:
    """`resolved`; where its engine dtype was left to this host, that of the run that another kind of host has begun here."""
    if asked.engine.dtype != "auto":
        return resolved
    for dtype in (resolved.engine.dtype, "bfloat16", "float32"):
        candidate = resolved.in_dtype(dtype)
        with reading(asked.output):
            if Ledger(store, asked.output, candidate.fingerprint(described)).has_begun():
                return candidate
    return resolved


@contextmanager
def reading(output: str) -> Iterator[None]:
    """What the store refuses within is a mistake in `output`."""
    try:
        yield
    except StorageError as error:
        raise ConfigError(f"output: cannot read {output}: {error}") from error


def recalled_job(store: Store, output: str, source: str, snapshot: Snapshot, described: Model) -> Job:
    """The job that made a dataset, over a source of today. Raises SourceError where the dataset does not say how it was made."""
    ledger = Ledger(store, output, snapshot.fingerprint)
    record, carried = ledger.read_run_record(), ledger.read_carried_schema()
    if record is None or carried is None:
        raise SourceError(f"output {output}: _meta/runs/{snapshot.fingerprint}.json is missing, so how to embed again is unknown")
    places = {"source": source, "output": output, "model": described.name, "revision": described.revision, "allow_untrained_dims": True}
    cfg = RunConfig.model_validate(record["config"] | places | {"storage": store.settings}).resolve(described)
    made_with = calibration.texts_of(snapshot.provenance)
    if cfg.fingerprint(described, made_with) != snapshot.fingerprint:
        raise SourceError(f"output {output}: was made by another version of bulkembed ({snapshot.provenance['bulkembed']})")
    return Job(cfg, described, snapshot.fingerprint, carried, snapshot.provenance, quantize.int8_ranges_from_text(snapshot.provenance))


def provenance(cfg: RunConfig, described: Model, fingerprint: str) -> dict[str, str]:
    """For the footers and receipts: what a vector was made with. No paths of the source, no credentials."""
    forms = cfg.vectors or ()
    return {
        "model": described.name,
        "revision": described.revision or "",
        "model_digest": described.digest,
        **{f"sha256.{name}": digest for name, digest in described.file_hashes if name.endswith(HASHED_IN_FOOTERS)},
        "pooling": described.pooling,
        "dims": ",".join(str(form.dim) for form in forms),
        "dtype": ",".join(dict.fromkeys(form.dtype for form in forms)),
        "vectors": ",".join(map(str, forms)),
        "engine_kind": cfg.engine.kind,
        "engine_dtype": cfg.engine.dtype,
        "engine_args": orjson.dumps(cfg.engine.numeric_args, option=orjson.OPT_SORT_KEYS).decode(),
        "prompt": cfg.prompt or "",
        "id_column": cfg.id_column,
        "text_columns": ",".join(cfg.text_columns),
        "template": cfg.template or "",
        "max_tokens": str(cfg.max_tokens),
        "long_documents": cfg.long_documents,
        "chunk_tokens": str(cfg.chunk_tokens or ""),
        "chunk_overlap": str(cfg.chunk_overlap),
        "normalization": "l2",
        "fingerprint": fingerprint,
        "bulkembed": __version__,
    }
