"""A run as one JSON object, for schedulers and monitors: what became of it, as far as it is known whenever it ends."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:  # a process that is ended by a signal imports nothing more
    from bulkembed.runs.job import Job
    from bulkembed.runs.plans import RunPlan
    from bulkembed.runs.progress import Progress
    from bulkembed.runs.run import Summary


class RunLine(TypedDict):
    """What `--json` prints. None: not known, because the run ended before. docs/operations.md has the table."""

    snapshot: int | None
    parent: int | None
    line: str | None
    current: bool
    documents: int | None
    embedded: int | None
    reused: int | None
    added: int | None
    changed: int | None
    deleted: int | None
    rejected: int | None
    left_out: int | None
    duplicates: int | None
    tokens: int | None
    seconds: float
    exit_code: int
    error: str | None


@dataclass
class Seen:
    """What is known of the runs of one command. A reindex that switches has two, one after the other."""

    started: float = field(default_factory=time.monotonic)
    job: Job | None = None
    plan: RunPlan | None = None  # of the run under way
    progress: Progress | None = None  # of the run under way
    done: list[Summary] = field(default_factory=list)  # runs that have ended
    current: bool = False  # whether readers get the snapshot of the last one
    is_dry: bool = False  # nothing but a plan was asked for

    def begin(self, job: Job, plan: RunPlan) -> None:
        self.job, self.plan, self.progress = job, plan, None

    def end(self, summary: Summary, is_current: bool) -> None:
        self.job, self.plan, self.progress, self.current = summary.job, None, None, is_current
        self.done.append(summary)

    @property
    def plans(self) -> list[RunPlan]:
        return [*(summary.plan for summary in self.done), *([self.plan] if self.plan else [])]

    @property
    def all_progress(self) -> list[Progress]:
        return [*(summary.progress for summary in self.done), *([self.progress] if self.progress else [])]


def run_line(seen: Seen, exit_code: int, error: str | None) -> RunLine:
    """The line of runs that have ended so. `error`: the one line of an error, if one has ended them."""
    snapshot = seen.done[-1].snapshot if seen.done else None
    plans = seen.plans
    return RunLine(
        snapshot=snapshot.number if snapshot else None,
        parent=plans[0].base.number or None if plans else None,
        line=seen.job.line if seen.job else None,
        current=seen.current,
        documents=snapshot.documents if snapshot else None,
        embedded=documents_of(plans, "embedded") if seen.is_dry else sum(each.counts.documents for each in seen.all_progress),
        reused=documents_of(plans, "reused", "adopted"),
        added=documents_of(plans, "added"),
        changed=documents_of(plans, "changed"),
        deleted=documents_of(plans, "deleted"),
        rejected=snapshot.rejects if snapshot else rejects_so_far(seen),
        left_out=sum(names.count for names in plans[-1].left_out) if plans and plans[-1].repeated is None else None,
        duplicates=documents_of(plans, "duplicates"),
        tokens=None if seen.is_dry else sum(each.counts.tokens for each in seen.all_progress),
        seconds=round(time.monotonic() - seen.started, 3),
        exit_code=exit_code,
        error=error or (plans[-1].held_back if plans and seen.is_dry else None),
    )


def documents_of(plans: list[RunPlan], *names: str) -> int | None:
    """The sum of these counts of nights. None before the whole source is read."""
    nights = [plan.night.counts for plan in plans if plan.night is not None]
    if not nights or len(nights) < len(plans):
        return None
    numbers: list[int] = [getattr(night, name) for night in nights for name in names]
    return sum(numbers)


def rejects_so_far(seen: Seen) -> int | None:
    """Rejects of a run without a snapshot: of the scan, and of what it has embedded."""
    plan = seen.plans[-1] if seen.plans else None
    if plan is None or plan.night is None:
        return None
    last = seen.progress or (seen.done[-1].progress if seen.done and not seen.plan else None)
    return sum(item.rejects for item in plan.night.sources) + (last.counts.rejects if last else 0)


def text_of(line: RunLine) -> str:
    """The object in one line of ASCII, so that no terminal can spoil it."""
    return json.dumps(line) + "\n"
