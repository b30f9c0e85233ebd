"""Publishes the snapshot of a plan. What would hold it back is looked up before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bulkembed.dataset import heads, snapshots
from bulkembed.dataset.manifests import DataFile, SourceVersion
from bulkembed.dataset.paths import rejects_folder
from bulkembed.dataset.snapshots import Draft, ParentMoved, Snapshot
from bulkembed.errors import ConfigError, HeldBack, IncompleteError, StorageError
from bulkembed.records import Counts, Receipt
from bulkembed.runs import guards
from bulkembed.runs.guards import Contents
from bulkembed.runs.job import Job
from bulkembed.shards import ShardId
from bulkembed.source.planning import ShardPlan
from bulkembed.storage.uris import absolute


def with_guards(job: Job, plan: ShardPlan) -> ShardPlan:
    """The plan with the known reasons not to publish it. A plan with unreadable objects has none: it is not published anyway."""
    try:
        newest, base_files = newest_of(job)
        # Receipts are many: they are read where a bound needs them, and where an earlier run embedded all and published nothing.
        unpublished = not plan.pending and newest is not None and base_files != sorted(plan.done)
        counts = counts_of(job, plan.done) if job.cfg.max_rejects is not None or unpublished else Counts()
    except StorageError as error:
        raise ConfigError(f"output: cannot read {job.cfg.output}: {error}") from error
    if plan.failures:
        return replace(plan, done_counts=counts)
    contents = contents_of(job, plan)
    shrunk = guards.held_back(newest, base_files, contents, job.cfg)
    rejected = guards.held_back(newest, base_files, replace(contents, documents=counts.documents), job.cfg) if unpublished else None
    return replace(plan, done_counts=counts, shrunk=shrunk, held_back=rejected or shrunk)


def newest_of(job: Job) -> tuple[Snapshot | None, list[str]]:
    """The snapshot that a run of this job follows, and its data files."""
    newest = snapshots.newest_of_line(job.store, job.cfg.output, job.recipe.line, job.cfg.limit is not None)
    return newest, snapshots.snapshot_files(job.store, job.cfg.output, newest) if newest else []


def contents_of(job: Job, plan: ShardPlan) -> Contents:
    return Contents(absolute(job.cfg.source), [*plan.done, *(shard.id for shard in plan.pending)])


def counts_of(job: Job, shards: Iterable[str]) -> Counts:
    return sum((receipt.counts for receipt in job.ledger.read_receipts(shards)), Counts())


def require_allowed(job: Job, plan: ShardPlan) -> None:
    """Raises what `require_publishable` does, or IncompleteError where too many of the rows done are rejects.

    Before that it writes the head and current.txt, since an earlier run may have died between its snapshot and these. This run may
    publish nothing for hours, or ever."""
    heads.refresh_head(job.store, job.cfg.output)
    require_publishable(plan)
    refuse_rejects(job, plan, plan.done_counts)


def require_publishable(plan: ShardPlan) -> None:
    """Raises HeldBack where this plan would not be published, before any work is done."""
    refuse_held_back(plan.held_back)


def require_retryable(plan: ShardPlan) -> None:
    """Raises what `require_publishable` does, except for rejects: they will be embedded again now."""
    refuse_held_back(plan.shrunk)


def refuse_held_back(reason: str | None) -> None:
    if reason is not None:
        raise HeldBack(f"held back: nothing was embedded or published: {reason}")


def refuse_rejects(job: Job, plan: ShardPlan, counts: Counts) -> None:
    """Raises IncompleteError. `counts`: of everything done of the plan, by this run or an earlier one."""
    if (reason := too_many_rejects(job, plan, counts)) is not None:
        raise IncompleteError(
            f"max_rejects: {reason}; nothing was "
            f"published; their reasons are in {rejects_folder(job.cfg.output, job.fingerprint)}; mend the source, run "
            "retry-rejects after any other fix, or raise max_rejects"
        )


def too_many_rejects(job: Job, plan: ShardPlan, counts: Counts) -> str | None:
    """What ends a run with these counts, before or after it has embedded anything; None where nothing does."""
    if not guards.too_many_rejects(job.cfg.max_rejects, counts, plan.rows_done + plan.rows_pending):
        return None
    return f"{counts.rejects:,} of {counts.rows:,} rows were rejected, more than it allows"


def publish(job: Job, plan: ShardPlan, shards: Iterable[str]) -> Snapshot:
    """The snapshot of these shards. Raises HeldBack: since the plan was made, another run may have published, or rows became rejects."""
    receipts = list(job.ledger.read_receipts(sorted(shards)))
    while True:
        newest, base_files = newest_of(job)
        try:
            snapshot = publish_over(job, plan, receipts, newest, base_files)
        except ParentMoved:
            continue
        heads.refresh_head(job.store, job.cfg.output)
        return snapshot


def publish_over(job: Job, plan: ShardPlan, receipts: list[Receipt], base: Snapshot | None, base_files: list[str]) -> Snapshot:
    """The snapshot of these receipts, onto `base`; `base` itself where it is of the same files and object versions."""
    files, sources = [data_file(receipt) for receipt in receipts], source_versions(job, plan, receipts)
    contents = Contents(absolute(job.cfg.source), [file.name for file in files], sum(file.documents for file in files))
    held_back = guards.held_back(base, base_files, contents, job.cfg)
    if held_back is not None:
        raise HeldBack(f"held back: nothing was published: {held_back}")
    draft = Draft(
        parent=base.number if base else 0,
        line=job.recipe.line,
        fingerprint=job.fingerprint,
        source=contents.source,
        limit=job.cfg.limit,
        run_key=None,
        provenance=job.provenance,
    )
    if base is not None and (base.source, base.fingerprint, base_files) == (draft.source, draft.fingerprint, contents.shards):
        identity = snapshots.identity_of(source.object_id for source in sources)
        if (base.source_identity, base.documents, base.rejects) == (identity, contents.documents, sum(each.rejects for each in sources)):
            return base
    return snapshots.publish_snapshot(job.store, job.cfg.output, draft, files, sources, [], lambda parent, following: None)


def data_file(receipt: Receipt) -> DataFile:
    counts = receipt.counts
    return DataFile(receipt.shard, counts.vectors, counts.documents, counts.tokens, receipt.data_bytes, receipt.data_sha256, contents=b"")


def source_versions(job: Job, plan: ShardPlan, receipts: list[Receipt]) -> list[SourceVersion]:
    """The object versions of these receipts, in source order. A run without a limit has read all of its source, empty objects too."""
    counts: dict[str, Counts] = {} if job.cfg.limit is not None else {item.id: Counts() for item in plan.objects}
    for receipt in receipts:
        object_id = ShardId.parse(receipt.shard).object_id
        counts[object_id] = counts.get(object_id, Counts()) + receipt.counts
    paths = {item.id: item.relative_path for item in plan.objects}
    return [SourceVersion(each, paths[each], counts[each].rows, counts[each].rejects) for each in sorted(counts)]
