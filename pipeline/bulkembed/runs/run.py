"""A whole run: look everything up, read what is new, embed what has no vector, rewrite what changed, publish the snapshot."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

from bulkembed import stopping
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import heads
from bulkembed.dataset.leases import Lease, lease
from bulkembed.dataset.manifests import new_token
from bulkembed.dataset.paths import exchange_folder
from bulkembed.dataset.publishing import ParentMoved
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import HeldBack, IncompleteError, StorageError
from bulkembed.records import Counts, Failure, LostAttempt, Sampled
from bulkembed.runs import calibration, row_types
from bulkembed.runs.buckets import Workplace
from bulkembed.runs.completion import complete
from bulkembed.runs.exchange import StoreExchange
from bulkembed.runs.executor import Executor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job, plan_again
from bulkembed.runs.night import NightCounts
from bulkembed.runs.plans import RunPlan, read_source_in_types
from bulkembed.runs.progress import Progress, failures_text
from bulkembed.shards import Shard

log = logging.getLogger(__name__)
MAX_ATTEMPTS = 10  # to publish, where other runs of the same line publish meanwhile

Report = Callable[[Progress], None]
Tell = Callable[[Job, RunPlan], None]


@dataclass(frozen=True)
class Summary:
    """What a run did."""

    job: Job  # with the int8 ranges that the run measured
    plan: RunPlan
    progress: Progress
    snapshot: Snapshot | None  # None where the run is incomplete
    current: Snapshot | None = None  # what readers got when the run looked last

    @property
    def night(self) -> NightCounts:
        """What became of the documents of this night."""
        return self.plan.night.counts if self.plan.night else NightCounts()

    @property
    def failures(self) -> list[Failure]:
        """What keeps the run from being complete."""
        return [*([] if self.job.cfg.skip_unreadable else self.plan.failures), *self.progress.failures]

    @property
    def skipped(self) -> list[Failure]:
        """Objects that cannot be read, and that the snapshot does without, as was asked for."""
        return self.plan.failures if self.job.cfg.skip_unreadable else []

    @property
    def is_current(self) -> bool:
        """Whether readers get its snapshot."""
        return self.snapshot is not None and self.current is not None and self.current.number == self.snapshot.number

    def require_complete(self) -> None:
        """Raises IncompleteError naming what failed."""
        if self.failures:
            reason = f"{len(self.failures)} failed: {failures_text(self.failures)}; the rest is done, running again resumes"
            raise IncompleteError(reason, self)


def run(cfg: RunConfig, report: Report, executor: Executor) -> Summary:
    """Makes the dataset equal to the source and, if nothing failed, publishes the snapshot.

    `report` is called after every shard."""
    job, plan = open_job(cfg)
    return finish(job, plan, report, executor)


def finish(
    job: Job,
    plan: RunPlan,
    report: Report,
    executor: Executor,
    tell: Tell = lambda job, plan: None,
    held: Lease | None = None,
) -> Summary:
    """Does what the plan says, and publishes the snapshot if nothing failed. `tell` gets a plan that has become exact.

    `held`: the lease of the line, looked at before files are rewritten and before the snapshot is published.

    Raises InterruptedRun where a signal ended it early, HeldBack where nothing may be published over the parent."""
    current = heads.keep_head(plan.base.view)  # an earlier run may have died between its snapshot and current.txt
    if plan.repeated is not None:
        return Summary(job, plan, Progress(), plan.repeated, current)
    refuse_held_back(plan.held_back, "embedded or published")
    stopping.stop.grace_seconds = job.cfg.grace_seconds
    with naming_what_is_lost(job.cfg.output), workplace(job, executor) as work:
        summary = attempts(job, plan, report, executor, tell, held.check if held else nothing, work)
        is_new = summary.snapshot is not None and summary.snapshot != summary.plan.base.parent
        return replace(summary, current=heads.refresh_head(job.store, job.cfg.output) if is_new else current)


def attempts(
    job: Job, plan: RunPlan, report: Report, executor: Executor, tell: Tell, check: Callable[[], None], work: Workplace
) -> Summary:
    """Plans and works until the snapshot is published onto the parent that it was planned from."""
    progress = Progress()
    for _ in range(MAX_ATTEMPTS):
        was_exact = plan.night is not None
        job, plan = prepare(job, plan, executor, work)
        if not was_exact:
            tell(job, plan)
        try:
            return Summary(job, plan, progress, embed_and_publish(job, plan, progress, report, executor, work, check))
        except ParentMoved:
            plan = plan_again(job, plan, progress.published, work)
    raise StorageError(f"{job.cfg.output}: {MAX_ATTEMPTS} other runs published on this line first; run again")


def embed_and_publish(
    job: Job, plan: RunPlan, progress: Progress, report: Report, executor: Executor, work: Workplace, check: Callable[[], None]
) -> Snapshot | None:
    """The snapshot of the night; None where it is incomplete. Raises ParentMoved where another run has published meanwhile."""
    progress.expect(plan.pending)
    is_complete = embed_pending(job, plan, progress, report, executor)
    if not is_complete or plan.night is None or (plan.failures and not job.cfg.skip_unreadable):
        return None
    check()
    return complete(job, plan, plan.night, progress.published, work, check)


@contextmanager
def naming_what_is_lost(output: str) -> Iterator[None]:
    """Raises StorageError for an object of the output that was there when the run was planned, and is not there any more."""
    try:
        yield
    except FileNotFoundError as error:
        lost = str(error.filename or error)
        if output.rpartition("://")[2].strip("/") not in lost:
            raise  # it is of this host
        raise StorageError(f"output: {lost} was lost while the run worked; run again, which does without it") from error


@contextmanager
def workplace(job: Job, executor: Executor) -> Iterator[Workplace]:
    """Where the keys of the run are worked on. Nothing of them stays in the store, however the run ends."""
    folder = exchange_folder(job.cfg.output, new_token())
    work = Workplace(executor.mapper, StoreExchange(job.store, folder))
    try:
        yield work
    finally:
        try:
            work.clear()
        except StorageError as error:  # the run has its own outcome
            log.warning("%s: keys of this run are left there until `bulkembed gc`: %s", folder, error)


def nothing() -> None:
    """What a run without a lease checks."""


def lease_of(job: Job) -> AbstractContextManager[Lease]:
    """The lease of a job's line, for the time of a block. Raises AlreadyRunning where another run holds it and `if_running` is not wait."""
    cfg = job.cfg
    return lease(job.store, cfg.output, job.line, cfg.limit is not None, cfg.lease_seconds, cfg.if_running)


def prepare(job: Job, plan: RunPlan, executor: Executor, work: Workplace) -> tuple[Job, RunPlan]:
    """The job and the plan with everything known: keys of the whole source, what is to be embedded, int8 ranges."""
    if plan.is_still:
        return job, plan
    job, plan = read_source_in_types(job, plan, work)
    calibration.keep(job)
    require_allowed(job, plan)
    if job.needs_int8_ranges and plan.pending:
        if plan.asked.retried:
            calibration.withdraw(job)
        job = calibration.calibrate(job, plan.pending, sampling(executor))
        row_types.write_types(job)
        plan = plan_again(job, plan, (), work)
        require_allowed(job, plan)
    return job, plan


def sampling(executor: Executor) -> calibration.Sample:
    def sample(shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        yield from executor.sample(shards, job)
        stopping.stop.check()

    return sample


def embed_pending(job: Job, plan: RunPlan, progress: Progress, report: Report, executor: Executor) -> bool:
    """Embeds what is pending, until too much of it has failed. Returns whether every row of it is embedded or rejected."""
    if not plan.pending:
        return True
    rows_before = progress.counts.rows
    for outcome in executor.run(plan.pending, job):
        progress.add(outcome)
        report(progress)
        if len(progress.failures) >= job.cfg.max_failures:
            break
        refuse_rejects(job, plan, progress.counts)
    # Rows are counted, not shards: a shard that lost its process may be done in pieces.
    if progress.counts.rows - rows_before == plan.rows_pending:
        return not progress.failures
    stopping.stop.check()
    return False


def require_allowed(job: Job, plan: RunPlan) -> None:
    """Raises HeldBack or IncompleteError where the result of this plan could not be published, before anything is embedded."""
    refuse_held_back(plan.held_back, "embedded or published")
    refuse_rejects(job, plan, Counts())


def refuse_held_back(reason: str | None, what: str) -> None:
    if reason is not None:
        raise HeldBack(f"held back: nothing was {what}: {reason}")


def refuse_rejects(job: Job, plan: RunPlan, tonight: Counts) -> None:
    """Raises IncompleteError where there are more rejects than `max_rejects` allows."""
    if (reason := plan.too_many_rejects(job.cfg, tonight)) is not None:
        raise IncompleteError(
            f"max_rejects: {reason}; nothing was published; their reasons are in {job.ledger.rejects_folder}; mend the source, run "
            "retry-rejects after any other fix, or raise max_rejects"
        )
