"""A whole run: look everything up, plan, embed what is pending, publish the snapshot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bulkembed import stopping
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import ConfigError, IncompleteError, StorageError
from bulkembed.records import Failure, LostAttempt, Receipt, Sampled
from bulkembed.runs import calibration, publication
from bulkembed.runs.executor import Executor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job, plan_shards
from bulkembed.runs.progress import Progress, failures_text
from bulkembed.shards import Shard
from bulkembed.source.planning import ShardPlan


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    job: Job  # with the int8 ranges that the run measured
    plan: ShardPlan
    progress: Progress
    snapshot: Snapshot | None  # None where the run is incomplete

    @property
    def failures(self) -> list[Failure]:
        return [*self.plan.failures, *self.progress.failures]

    def require_complete(self) -> None:
        """Raises IncompleteError naming what failed."""
        if self.failures:
            reason = f"{len(self.failures)} failed: {failures_text(self.failures)}; the rest is done, running again resumes"
            raise IncompleteError(reason, self)


def run(cfg: RunConfig, report: Callable[[Progress], None], executor: Executor) -> Summary:
    """Embeds what is pending and, if nothing failed, publishes the snapshot.

    `report` is called after every shard."""
    job, plan = open_job(cfg)
    return finish(job, plan, report, executor)


def finish(job: Job, plan: ShardPlan, report: Callable[[Progress], None], executor: Executor | None) -> Summary:
    """Embeds what the plan has pending, and publishes the snapshot if nothing failed. `executor`: None where nothing is pending.

    Raises InterruptedRun where a signal ended it early, HeldBack where nothing may be published over the newest snapshot."""
    publication.require_allowed(job, plan)
    stopping.stop.grace_seconds = job.cfg.grace_seconds
    job, plan = start(job, plan, executor)
    progress = Progress(len(plan.pending), plan.rows_pending)
    published = embed_pending(job, plan, progress, report, executor) if plan.pending and executor is not None else set[str]()
    # Rows are counted, not shards: a shard that lost its process may be done in pieces.
    is_complete = progress.counts.rows == plan.rows_pending
    if not is_complete:
        stopping.stop.check()
    snapshot = None
    if is_complete and not plan.failures and not progress.failures:
        snapshot = publication.publish(job, plan, published.union(plan.done))
    return Summary(job, plan, progress, snapshot)


def start(job: Job, plan: ShardPlan, executor: Executor | None) -> tuple[Job, ShardPlan]:
    """Writes the run record, after the int8 ranges if the job needs them. Raises ConfigError where the output cannot be written to."""
    try:
        if job.needs_int8_ranges and executor is not None:
            job, plan = calibrate(job, plan, executor)
        job.ledger.write_run_record(job.carried, job.provenance)
    except (StorageError, FileNotFoundError) as error:
        raise ConfigError(f"output: cannot write to {job.cfg.output}: {error}") from error
    return job, plan


def embed_pending(job: Job, plan: ShardPlan, progress: Progress, report: Callable[[Progress], None], executor: Executor) -> set[str]:
    """Embeds what is pending, until too much of it has failed. Returns the ids of the published shards."""
    published: set[str] = set()
    for outcome in executor.run(plan.pending, job):
        progress.add(outcome)
        if isinstance(outcome, Receipt):
            published.add(outcome.shard)
        report(progress)
        if len(progress.failures) >= job.cfg.max_failures:
            break
        publication.refuse_rejects(job, plan, plan.done_counts + progress.counts)
    return published


def calibrate(job: Job, plan: ShardPlan, executor: Executor) -> tuple[Job, ShardPlan]:
    """The job with int8 ranges, and what is left to do with them: another run may have started with the same ranges."""

    def sample(shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        yield from executor.sample(shards, job)
        stopping.stop.check()

    job = calibration.calibrate(job, plan.pending, sample)
    if done := job.ledger.done():
        plan = plan_shards(job, plan.listing, done, {})
        publication.require_allowed(job, plan)
    return job, plan
