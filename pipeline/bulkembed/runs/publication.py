"""Publishes the snapshot of a plan. What would hold it back is looked up before anything is embedded."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from bulkembed.dataset import snapshots
from bulkembed.dataset.paths import rejects_folder
from bulkembed.dataset.snapshots import Snapshot, newest_snapshot, write_current
from bulkembed.errors import ConfigError, HeldBack, IncompleteError, StorageError
from bulkembed.records import Counts
from bulkembed.runs import guards
from bulkembed.runs.guards import Contents
from bulkembed.runs.job import Job
from bulkembed.source.planning import ShardPlan
from bulkembed.storage.uris import absolute


def with_guards(job: Job, plan: ShardPlan) -> ShardPlan:
    """The plan with the known reasons not to publish it. A plan with unreadable objects has none: it is not published anyway."""
    try:
        newest = newest_snapshot(job.store, job.cfg.output)
        # Receipts are many: they are read where a bound needs them, and where an earlier run embedded all and published nothing.
        unpublished = not plan.pending and newest is not None and not newest.holds(job.fingerprint, sorted(plan.done))
        counts = counts_of(job, plan.done) if job.cfg.max_rejects is not None or unpublished else Counts()
    except StorageError as error:
        raise ConfigError(f"output: cannot read {job.cfg.output}: {error}") from error
    if plan.failures:
        return replace(plan, done_counts=counts)
    contents = contents_of(job, plan)
    shrunk = guards.held_back(newest, contents, job.cfg)
    rejected = guards.held_back(newest, replace(contents, documents=counts.documents), job.cfg) if unpublished else None
    return replace(plan, done_counts=counts, shrunk=shrunk, held_back=rejected or shrunk)


def contents_of(job: Job, plan: ShardPlan) -> Contents:
    return Contents(absolute(job.cfg.source), [*plan.done, *(shard.id for shard in plan.pending)])


def counts_of(job: Job, shards: Iterable[str]) -> Counts:
    return sum((receipt.counts for receipt in job.ledger.read_receipts(shards)), Counts())


def require_allowed(job: Job, plan: ShardPlan) -> None:
    """Raises what `require_publishable` does, or IncompleteError where too many of the rows done are rejects.

    Before that it writes current.txt again, since an earlier run may have died between its snapshot and current.txt. This run may
    publish nothing for hours, or ever."""
    write_current(job.store, job.cfg.output)
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


def publish(job: Job, shards: Iterable[str]) -> Snapshot:
    """The snapshot of these shards. Raises HeldBack: since the plan was made, another run may have published, or rows became rejects."""

    def guard(newest: Snapshot, following: Snapshot) -> None:
        contents = Contents(following.source, following.shards, following.documents)
        held_back = guards.held_back(newest, contents, job.cfg)
        if held_back is not None:
            raise HeldBack(f"held back: nothing was published: {held_back}")

    return snapshots.publish_snapshot(job.ledger, sorted(shards), absolute(job.cfg.source), job.provenance, guard)
