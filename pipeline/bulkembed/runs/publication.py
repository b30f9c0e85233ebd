"""A night's files -> the snapshot that readers see."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import partial

from bulkembed.dataset import file_keys, publishing
from bulkembed.dataset.erasures import newest_erasure
from bulkembed.dataset.manifests import DataFile, Rejected
from bulkembed.dataset.publishing import ParentMoved
from bulkembed.dataset.run_keys import mark_run_key
from bulkembed.dataset.snapshots import Draft, Snapshot, identity_of
from bulkembed.errors import BulkembedError
from bulkembed.runs.buckets import READERS
from bulkembed.runs.job import Job
from bulkembed.runs.mapper import LocalMapper, Mapper
from bulkembed.runs.night import Night
from bulkembed.runs.plans import RunPlan
from bulkembed.runs.row_types import json_text_columns
from bulkembed.storage.uris import absolute, canonical

SAID_AGAIN = ("fingerprint", "exclude", "format", "limit", "erasure", "unreadable", "left_out")  # fields that a new snapshot would repeat

FILES_PER_TASK = 64  # whose entries are read in one task: each is a few small requests


def publish(
    job: Job, plan: RunPlan, night: Night, names: Collection[str], rejected: Sequence[Rejected], check: Callable[[], None], mapper: Mapper
) -> Snapshot:
    """The snapshot of these files: the parent itself, if it says the same. `check` is called just before the snapshot is written.

    Raises ParentMoved where another run has published on this line since the night was planned, or ids were erased."""
    parent, draft = night.base.parent, draft_of(job, plan, night)
    if parent is not None and is_same(draft, night, parent, names):
        require_every_row(night, parent)
        if job.cfg.run_key is not None:
            mark_run_key(job.store, job.cfg.output, replace(parent, run_key=job.cfg.run_key))
        return parent

    def guard(parent: Snapshot | None, following: Snapshot) -> None:
        check()
        require_every_row(night, following)
        if newest_erasure(job.store, job.cfg.output) != following.erasure:
            raise ParentMoved(parent)

    files = data_files(job, night, names, mapper)
    return publishing.publish_snapshot(job.store, job.cfg.output, draft, files, night.sources, rejected, guard)


def draft_of(job: Job, plan: RunPlan, night: Night) -> Draft:
    """What the run says of its snapshot, beside what can be counted."""
    return Draft(
        parent=night.base.number,
        line=job.line,
        fingerprint=job.fingerprint,
        sources=sorted(map(absolute, job.cfg.sources)),
        exclude=sorted(job.cfg.exclude),
        format=job.cfg.format,
        limit=job.cfg.limit,
        run_key=job.cfg.run_key,
        provenance=job.provenance,
        erasure=plan.versions.erasure,
        forgotten=night.forgotten,
        unreadable=[failure.where for failure in plan.failures],
        left_out=[{"reason": names.reason, "count": names.count, "examples": list(names.examples)} for names in plan.left_out],
        tables=plan.listing.tables,
        json_text=json_text_columns(job),
    )


def is_same(draft: Draft, night: Night, parent: Snapshot, names: Collection[str]) -> bool:
    """Whether a new snapshot would say what the parent says."""
    return (
        parent.source_identity == identity_of(item.object_id for item in night.sources)
        and sorted(map(canonical, parent.sources)) == sorted(map(canonical, draft.sources))
        and all(getattr(parent, name) == getattr(draft, name) for name in SAID_AGAIN)
        and parent.number not in night.base.view.doubted
        and set(names) == night.base.files.keys()
        and parent.files == len(names)
    )


def require_every_row(night: Night, snapshot: Snapshot) -> None:
    """Raises BulkembedError unless each row of the source is a document or a reject. A fault of the code must not lose one."""
    rows = sum(item.rows for item in night.sources)
    if rows != snapshot.documents + snapshot.rejects + night.forgotten:
        raise BulkembedError(
            f"the source has {rows:,} rows, but the new snapshot would have {snapshot.documents:,} documents and {snapshot.rejects:,} "
            "rejects; nothing is published; this is a fault of bulkembed, please report it with the output of `bulkembed verify`"
        )


def data_files(job: Job, night: Night, names: Collection[str], mapper: Mapper) -> Iterator[DataFile]:
    """The entries of files in a manifest, in the order of their names. Those of the parent are known, others read as asked for."""
    known = night.base.files
    names = sorted(names)
    new = [name for name in names if name not in known]
    batches = [new[first : first + FILES_PER_TASK] for first in range(0, len(new), FILES_PER_TASK)]
    fresh = (item for items in mapper.map(partial(data_files_at_once, job), batches) for item in items)
    yield from (known[name] if name in known else next(fresh) for name in names)


def data_files_at_once(job: Job, names: Sequence[str]) -> list[DataFile]:
    return list(LocalMapper(READERS).map(partial(data_file, job), names))


def data_file(job: Job, name: str) -> DataFile:
    """The entry of a published file, from its receipt and its column of content hashes."""
    receipt = job.ledger.read_receipt(name)
    contents = file_keys.content_prefixes(file_keys.contents_of_file(job.store, job.ledger.data_uri(name)))
    counts = receipt.counts
    return DataFile(name, counts.vectors, counts.documents, counts.tokens, receipt.data_bytes, receipt.data_sha256, contents)
