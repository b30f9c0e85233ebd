"""What a run has to do, before and after the whole source is read: the plan, and the reading that makes it exact."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import cached_property, partial

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.records import Counts, Failure
from bulkembed.runs import guards, row_types
from bulkembed.runs.base import Base
from bulkembed.runs.buckets import Workplace, in_this_process
from bulkembed.runs.job import Job
from bulkembed.runs.mapper import LocalMapper
from bulkembed.runs.night import Asked, Night, plan_night, rows_to_compare, sources_of
from bulkembed.runs.picks import bounds_of
from bulkembed.runs.versions import Versions
from bulkembed.shards import Shard
from bulkembed.source import columns, planning
from bulkembed.source.objects import LeftOutNames, SourceListing, SourceObject


@dataclass(frozen=True)
class RunPlan:
    """What a run has to do, as far as it is known before the whole source is read."""

    listing: SourceListing
    versions: Versions
    base: Base
    asked: Asked
    pending: list[Shard]  # to embed; before all of the source is read: all rows of the objects that came
    failures: list[Failure]  # objects that cannot be read
    night: Night | None  # None before all of the source is read
    held_back: str | None = None  # why nothing may be published
    repeated: Snapshot | None = None  # what an earlier run of the same run key has published

    @property
    def objects(self) -> list[SourceObject]:
        return self.listing.objects

    @property
    def left_out(self) -> list[LeftOutNames]:
        return self.listing.left_out

    @property
    def is_still(self) -> bool:
        """Whether the dataset is that of this source already."""
        unchanged = self.night is not None and self.night.is_still and not self.failures and is_unchanged(self.base, self.listing)
        return unchanged or self.repeated is not None

    @property
    def has_retries(self) -> bool:
        """Whether the parent remembers rejects for one of the reasons that are tried again."""
        return any(item.reason in self.asked.retried for item in self.base.rejected.values())

    @cached_property
    def rows_pending(self) -> int:
        return sum(shard.rows for shard in self.pending)

    def too_many_rejects(self, cfg: RunConfig, tonight: Counts) -> str | None:
        """What `max_rejects` says, once all of the source is read. `tonight`: counts of what was embedded tonight."""
        if self.night is None:
            return None
        rows = sum(item.rows for item in self.night.sources)
        known = sum(item.rejects for item in self.night.sources) + self.night.counts.remembered
        if self.base.is_usable:
            gone = len(self.night.matched.forgotten_contents) if self.night.matched else 0
            known += sum(item.rows for item in self.base.rejected.values()) - gone
        return guards.too_many_rejects(cfg, known, tonight, rows)


def is_unchanged(base: Base, listing: SourceListing) -> bool:
    """Whether the parent was made from exactly these object versions, and all of its files stand."""
    return base.is_usable and {item.id for item in listing.objects} == base.sources.keys()


def still_night(base: Base, listing: SourceListing) -> Night:
    """Nothing to do."""
    forgotten = base.parent.forgotten if base.parent else 0
    return Night(base, listing.objects, list(base.sources.values()), carried=sorted(base.files), forgotten=forgotten)


def unread_objects(plan: RunPlan) -> list[SourceObject]:
    """The objects whose keys are not known."""
    return plan.versions.missing(new_objects(plan), len(plan.objects))


def new_objects(plan: RunPlan) -> list[SourceObject]:
    """The objects that the parent does not have; all of them where its files are of no use."""
    known = plan.base.sources if plan.base.is_usable else {}
    return [item for item in plan.objects if item.id not in known]


def read_source_in_types(job: Job, plan: RunPlan, work: Workplace | None) -> tuple[Job, RunPlan]:
    """The plan with the keys of all of the source, and the job in types that hold all values. It writes the run record first.

    `work`: None where nothing may be written yet."""

    def read(job: Job) -> RunPlan:
        if work is not None:
            row_types.write_types(job)
        return read_source(job, replace(plan, versions=plan.versions.in_types_of(job, plan.base.view)), work)

    job, found = row_types.with_types(job, read)
    return (job if work is None else row_types.recorded(job)), found


def read_source(job: Job, plan: RunPlan, work: Workplace | None, max_rows: int = sys.maxsize) -> RunPlan:
    """The plan with the keys of all of the source. `work`: None where nothing may be written yet, and keys lie in this process.

    `max_rows`: how many may lie there. Where there are more, the plan stays as it is."""
    if work is not None:
        plan.versions.write_held(LocalMapper())
    if plan.night is not None:
        return plan
    objects, unreadable = readable_objects(job, plan, work, max_rows)
    if work is None and job.cfg.limit is None and is_much(plan, objects, max_rows):
        return plan
    partitions_for = (lambda documents: in_this_process()) if work is None else work.partitions
    night = plan_night(job, plan.base, objects, plan.versions, partitions_for, plan.asked)
    if not sum(item.rows for item in night.sources) and not unreadable and plan.base.parent is None:
        raise columns.no_rows(job.cfg.source_text)
    return with_guards(job, replace(plan, night=night, pending=night.shards, failures=[*plan.failures, *unreadable]))


def readable_objects(job: Job, plan: RunPlan, work: Workplace | None, max_rows: int) -> tuple[list[SourceObject], list[Failure]]:
    """The objects of the run, and those that cannot be read. Reads the unread ones, without `work` until it holds so many rows."""
    if job.cfg.limit is not None:
        return plan.versions.read_rows(plan.objects, job.cfg.limit)
    unread = unread_objects(plan)
    if work is None:
        unreadable = plan.versions.read(unread, LocalMapper(), max_rows)
    else:
        unreadable = plan.versions.read_and_write(unread, work.mapper(sum(item.size for item in unread)))
    bad = {failure.where for failure in unreadable}
    return [item for item in plan.objects if item.uri not in bad], unreadable


def is_much(plan: RunPlan, objects: list[SourceObject], max_rows: int) -> bool:
    """Whether more rows than that are to be compared, in these objects and in those that went."""
    if plan.versions.missing([item for item in objects if item.id not in plan.base.sources], len(plan.objects)):
        return True  # reading has ended early
    return rows_to_compare(plan.base, sources_of(plan.base, objects, plan.versions)) > max_rows


def with_guards(job: Job, plan: RunPlan) -> RunPlan:
    """The plan with what holds it back. With unreadable objects it is not published anyway."""
    if plan.night is None or (plan.failures and not job.cfg.skip_unreadable):
        return plan
    deletes, reasons = plan.night.counts.deleted, plan.versions.reasons()
    reason = guards.held_back(plan.base.parent, deletes, job.cfg) or guards.no_document(plan.night.sources, reasons, deletes, job.cfg)
    return replace(plan, held_back=reason)


def with_layouts(job: Job, plan: RunPlan) -> RunPlan:
    """A plan of a large source with all rows of the objects that came as pending. It reads footers, and the lines of JSON lines."""
    if plan.night is not None:
        return plan
    check = partial(columns.require_columns, job.recipe)
    texts = job.recipe.vector_key.text_columns
    shards, failures = planning.plan(job.source_store, new_objects(plan), check, texts, bounds_of(job))
    return replace(plan, pending=shards, failures=[*plan.failures, *failures])
