"""What a run builds on: the snapshot that it was planned from, and published files whose vectors it can use."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bulkembed.config.recipe import Recipe
from bulkembed.dataset import manifests
from bulkembed.dataset.manifests import DataFile, Rejected, SourceVersion
from bulkembed.dataset.snapshots import Snapshot, View
from bulkembed.runs.buckets import Prefixes, among
from bulkembed.runs.job import Job
from bulkembed.runs.matching import BASE, FOREIGN, ORPHAN
from bulkembed.shards import FileName

EMBEDDED = {"", "e"}  # kinds of files that hold what a run embedded; the others are made of these


class Candidate(NamedTuple):
    """A published file whose vectors may serve."""

    fingerprint: str  # of the folder where it lies
    name: str
    state: int  # BASE: its rows are in the parent. ORPHAN: they are in no snapshot of this line. FOREIGN: another line has them
    documents: int
    rows: int


@dataclass(frozen=True)
class Base:
    """The parent snapshot, and what can be used of it. Without a parent everything is empty."""

    view: View  # of the output, when the run was planned
    parent: Snapshot | None = None
    is_usable: bool = False  # its keys and files stand, so that only the difference from it is looked at
    files: dict[str, DataFile] = field(default_factory=dict)  # of the parent, by name: those that stand
    damaged: list[str] = field(default_factory=list)  # files of the parent that are missing, or have another size
    sources: dict[str, SourceVersion] = field(default_factory=dict)  # of the parent, by object id
    rejected: dict[bytes, Rejected] = field(default_factory=dict)  # of the parent, by content
    standing: dict[str, int] = field(default_factory=dict)  # bytes of all data files that there are, by name
    has_keys: bool = True  # whether the keys of its object versions that went are known

    @property
    def number(self) -> int:
        return self.parent.number if self.parent else 0


def open_base(job: Job, view: View) -> Base:
    """The newest snapshot of the job's line. A trial with a limit has a line of its own."""
    parent = view.newest_of_line(job.line, limited=job.cfg.limit is not None)
    standing = job.ledger.sizes()
    if parent is None:
        return Base(view, standing=standing)
    listed = view.manifest(parent)
    # Those of a trial say nothing: another limit takes other rows of the same version.
    sources = {item.object_id: item for item in listed.sources} if job.cfg.limit is None else {}
    rejected = {item.content_hash: item for item in listed.rejected}
    if parent.fingerprint != job.fingerprint:  # other int8 ranges: its vectors are of no use
        return Base(view, parent, sources=sources, rejected=rejected, standing=standing)
    files = {item.name: item for item in listed.files}
    damaged = [name for name, item in files.items() if standing.get(name) != item.data_bytes]
    trusted = parent.number not in view.doubted
    usable = not damaged and trusted and job.cfg.limit is None and parent.erasure == view.erasure
    intact = {name: item for name, item in files.items() if name not in set(damaged)}
    return Base(view, parent, usable, intact, damaged, sources, rejected, standing)


def candidates(job: Job, base: Base, wanted: Prefixes, published: Collection[str]) -> list[Candidate]:
    """Files that may have one of the wanted contents: the parent's, those that aborted runs left, and where the line is new another line's.

    `published`: names of further files that this run has published itself."""
    state = BASE if base.is_usable else ORPHAN
    listed = dict(base.files) if base.is_usable else relatives(job, base) | base.files
    found = [candidate(job.fingerprint, item, state) for item in listed.values() if may_hold(item, wanted)]
    loose = orphans(job, base, listed.keys()) | (set(published) - listed.keys())
    receipts = job.ledger.find_receipts(sorted(loose))
    found += [Candidate(job.fingerprint, each.shard, ORPHAN, each.counts.documents, each.counts.vectors) for each in receipts]
    return found if base.parent else [*found, *foreign(job, base.view, wanted)]


def candidate(fingerprint: str, item: DataFile, state: int) -> Candidate:
    return Candidate(fingerprint, item.name, state, item.documents, item.rows)


def may_hold(item: DataFile, wanted: Prefixes) -> bool:
    return bool(among(np.frombuffer(item.contents, "<u4"), wanted).any())


def relatives(job: Job, base: Base) -> dict[str, DataFile]:
    """Files of the newest whole or limited snapshot of this line, whichever is not the parent. A trial and the whole share vectors."""
    found = (base.view.newest_of_line(job.line, limited=limited) for limited in (True, False))
    files = (
        item
        for snapshot in found
        if snapshot is not None and snapshot != base.parent and snapshot.fingerprint == job.fingerprint
        for item in manifests.read_files(job.store, job.cfg.output, snapshot.manifest)  # not kept, as those of the parent are
    )
    return {item.name: item for item in files if base.standing.get(item.name) == item.data_bytes}


def orphans(job: Job, base: Base, known: Collection[str]) -> set[str]:
    """Names of embedded files that no snapshot of this line lists: a run left them that was aborted on the parent, or on its parent.

    Such a file is named after the snapshot that its run was planned from. Older snapshots need not be read, however many there are: what
    was planned from the parent is in none of them. What was planned from the parent's parent is in the parent, or in none."""
    planned_from = {base.number, base.parent.parent if base.parent else 0}
    files = ((name, FileName.parse(name)) for name in base.standing.keys() - known - set(base.damaged))
    left = {name for name, file in files if file.kind in EMBEDDED and file.parent in planned_from}
    if 0 not in planned_from:
        return left
    for snapshot in base.view.newest_first():  # whole runs and trials begin from 0 alike
        if not left:
            break
        if snapshot.fingerprint == job.fingerprint:
            left -= set(manifests.read_names(job.store, job.cfg.output, snapshot.manifest))
    return left


def foreign(job: Job, view: View, wanted: Prefixes) -> list[Candidate]:
    """The files of the newest snapshot of another line from which this line's vectors can be had without the model."""
    for snapshot in newest_of_other_lines(view, {job.line}):
        try:
            recipe = Recipe.from_texts(snapshot.provenance)
        except ValueError:
            continue  # another version of bulkembed made it
        if job.recipe.derivable_from(recipe, job.cfg.derive):
            files = manifests.read_files(view.store, view.output, snapshot.manifest)
            return [candidate(snapshot.fingerprint, item, FOREIGN) for item in files if may_hold(item, wanted)]
    return []


def newest_of_other_lines(view: View, lines: Collection[str]) -> Iterator[Snapshot]:
    """The newest snapshot of each line but these, newest first. A trial stands for a line only where it has no whole snapshot."""
    seen = set(lines)
    newest_first = sorted(view.newest_first(), key=lambda item: (item.limited, -item.number))
    for snapshot in newest_first:
        if snapshot.line not in seen:
            seen.add(snapshot.line)
            yield snapshot
