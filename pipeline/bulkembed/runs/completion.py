"""The end of a night: documents that share a vector get it, changed files are rewritten, and the snapshot is published."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from bulkembed.dataset.manifests import Rejected
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import HeldBack
from bulkembed.row_keys import Hashes, from_digests, no_hashes
from bulkembed.runs import guards, publication
from bulkembed.runs.base import Candidate
from bulkembed.runs.buckets import KEY_BYTES, Workplace
from bulkembed.runs.file_changes import FileChange, changes_of, slots_of
from bulkembed.runs.job import Job
from bulkembed.runs.matching import BASE
from bulkembed.runs.night import Night
from bulkembed.runs.partitions import twin_match
from bulkembed.runs.plans import RunPlan
from bulkembed.runs.rejects import RejectedRows, rejected_in, remembered_rejects
from bulkembed.runs.rewrites import Documents, rewrite_all


def complete(job: Job, plan: RunPlan, night: Night, published: Collection[str], work: Workplace, check: Callable[[], None]) -> Snapshot:
    """Makes all files of the night and publishes its snapshot. `published`: names of the files that this night has embedded.

    `check` is called just before the snapshot is written.

    Raises ParentMoved where another run has published on this line, HeldBack where too many documents would leave."""
    # Those of before the night was planned again are carried or rewritten, or another run has published their documents.
    embedded = sorted(set(published).difference(plan.asked.published, night.carried, (change.file.name for change in night.changes)))
    tonight = rejected_in(job, embedded)
    twin_changes, twin_rejects = twins_of(job, night, embedded, tonight, work)
    changes = [*night.changes, *twin_changes]
    n_rewritten = sum(change.file.rows for change in changes)
    mapper = work.mapper(n_rewritten * sum(form.stored_bytes for form in job.columns.values()))
    receipts = rewrite_all(job, night.base.number, changes, Documents(night.objects, plan.versions), work, mapper)
    replaced = {change.file.name for change in twin_changes}
    names = {*night.carried, *embedded, *(receipt.shard for receipt in receipts)} - replaced
    rejected = all_rejected(night, tonight, twin_rejects)
    refuse_lost(job, night, rejected)
    mapper = work.mapper((plan.rows_pending + n_rewritten) * KEY_BYTES)
    snapshot = publication.publish(job, plan, night, names, rejected, check, mapper)
    for name in replaced:  # no snapshot lists it, and another file has its rows
        job.ledger.remove(name)
    return snapshot


def twins_of(job: Job, night: Night, embedded: Sequence[str], tonight: RejectedRows, work: Workplace) -> tuple[list[FileChange], Hashes]:
    """The files that get more documents with the texts that were just embedded, and the contents of those that were rejected."""
    if night.matched is None or night.partitions is None or not night.matched.twins:
        return [], no_hashes()
    receipts = job.ledger.read_receipts(embedded)
    files = [Candidate(job.fingerprint, receipt.shard, BASE, receipt.counts.documents, receipt.counts.vectors) for receipt in receipts]
    partitions = work.after_embedding(night.partitions)
    matched = twin_match(night.matched, slots_of(job, files), from_digests(sorted(tonight.reasons)), partitions)
    return changes_of(job, files, matched)[0], matched.remembered_contents


def all_rejected(night: Night, tonight: RejectedRows, twin_rejects: Hashes) -> list[Rejected]:
    """The rejects that the snapshot remembers: those of the parent that are still there, and those of tonight."""
    before = night.base.rejected.values() if night.base.is_usable else ()
    came, gone = [from_digests(tonight.contents), twin_rejects], no_hashes()
    if night.matched is not None:
        came, gone = [*came, night.matched.remembered_contents], night.matched.forgotten_contents
    return remembered_rejects(before, came, gone, night.rejects | tonight.reasons)


def refuse_lost(job: Job, night: Night, rejected: Sequence[Rejected]) -> None:
    """Raises HeldBack where documents of the parent became rejects, and too many leave the dataset with those that were deleted."""
    before = sum(item.rows for item in night.base.rejected.values())
    more = max(0, sum(item.rows for item in rejected) - before)
    deletes = night.counts.deleted + min(night.counts.changed, more)
    reason = guards.held_back(night.base.parent, deletes, job.cfg)
    if reason is not None:
        raise HeldBack(f"held back: nothing was published: {reason}")
