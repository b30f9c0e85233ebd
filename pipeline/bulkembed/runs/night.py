"""What makes the dataset equal to the source: the difference from the parent, and where the vectors of what came are.

keys of the source      keys of the parent         runs/versions
         difference: what came, what went          runs/partitions
         match: which vectors are there            runs/partitions
shards to embed     changes of files               runs/picks, runs/file_changes
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from bulkembed.dataset.manifests import SourceVersion
from bulkembed.row_keys import from_digests
from bulkembed.runs.base import Base, Candidate, candidate, candidates
from bulkembed.runs.buckets import KeySet, Owner, Partitions
from bulkembed.runs.file_changes import FileChange, changes_of, slots_of
from bulkembed.runs.job import Job
from bulkembed.runs.matching import BASE, ORPHAN
from bulkembed.runs.partitions import Changes, NightMatch, groups_of, night_difference, night_match, rows_to_embed
from bulkembed.runs.picks import shards_of_rows
from bulkembed.runs.rejects import Rejects, rejected_in
from bulkembed.runs.versions import Versions
from bulkembed.shards import Shard
from bulkembed.source.objects import SourceObject


@dataclass(frozen=True)
class Asked:
    """What this run knows beside its configuration."""

    retried: Collection[str] = ()  # reasons of rejects that are embedded again
    published: Collection[str] = ()  # names of files that it has published itself, before it planned again


@dataclass(frozen=True)
class NightCounts:
    """Documents of a night, by what happens to them."""

    added: int = 0  # more documents of their id than before
    changed: int = 0  # their id was there with another text or other kept columns
    deleted: int = 0  # fewer documents of their id than before
    embedded: int = 0  # go to the engine
    reused: int = 0  # get a vector that is there: of the same text under another id, or with other kept columns
    adopted: int = 0  # are in a file of this line already, such as one of a run that did not finish
    duplicates: int = 0  # have the text of another document that goes to the engine
    remembered: int = 0  # have a text that was rejected before


@dataclass(frozen=True)
class Night:
    """What is to be done tonight."""

    base: Base
    objects: list[SourceObject]  # of tonight, in source order
    sources: list[SourceVersion]  # the same, as the new snapshot lists them
    carried: list[str]  # names of files that stay as they are
    shards: list[Shard] = field(default_factory=list)  # to embed
    changes: list[FileChange] = field(default_factory=list)  # files that are rewritten
    rejects: Rejects = field(default_factory=dict)  # contents that are known to be rejected
    difference: Changes | None = None  # these three: None where nothing is to be done
    matched: NightMatch | None = None
    forgotten: int = 0  # rows of the source that are no document because their ids are erased
    partitions: Partitions | None = None  # they hold the documents whose text one of the shards has

    @property
    def is_still(self) -> bool:
        """Whether nothing is embedded, and no file changes."""
        return not (self.shards or self.changes) and set(self.carried) == self.base.files.keys()

    @property
    def counts(self) -> NightCounts:
        return NightCounts() if self.matched is None or self.difference is None else counts_of(self.difference, self.matched)


def counts_of(found: Changes, matched: NightMatch) -> NightCounts:
    return NightCounts(
        added=found.added,
        changed=found.changed,
        deleted=found.deleted,
        embedded=matched.embed,
        reused=len(matched.adds),
        adopted=len(matched.adopted),
        duplicates=matched.twins,
        remembered=matched.remembered,
    )


def sources_of(base: Base, objects: Sequence[SourceObject], versions: Versions) -> list[SourceVersion]:
    """These objects, whose keys are known, as a snapshot lists them."""
    versions.look_at([item.id for item in objects if item.id not in base.sources])
    return [base.sources.get(item.id) or versions.source_version(item) for item in objects]


def rows_to_compare(base: Base, sources: Sequence[SourceVersion]) -> int:
    """How many rows the objects have that came or went; all of the source where the parent's files are of no use."""
    rows = {item.object_id: item.rows for item in sources}
    if not base.is_usable and base.parent is not None:
        return sum(rows.values()) + sum(item.rows for item in base.sources.values())
    before = {object_id: item.rows for object_id, item in base.sources.items()}
    return sum((rows if object_id in rows else before)[object_id] for object_id in rows.keys() ^ before.keys())


def plan_night(
    job: Job, base: Base, objects: Sequence[SourceObject], versions: Versions, partitions_for: Callable[[int], Partitions], asked: Asked
) -> Night:
    """The night's work on these objects, whose keys are known. `partitions_for`: how so many keys are worked on."""
    sources = sources_of(base, objects, versions)
    went, came = keys_that_went(job, base, sources, versions), keys_that_came(base, sources, versions)
    partitions = partitions_for(went.documents + came.documents)
    found = counted = night_difference(went, came, partitions)
    if not base.is_usable and base.parent is not None:
        # The parent's files are of no use, so every document is looked for in whatever files there are.
        partitions.exchange.remove()
        everything = KeySet(owners_of(enumerate(sources), versions), versions.keys)
        partitions = partitions_for(everything.documents)
        found = night_difference(KeySet([], everything.read), everything, partitions)
    files = candidates(job, base, found.contents, asked.published)
    rejects = known_rejects(job, base, files, asked.retried)
    groups = groups_of(found, [item.rows for item in sources])
    matched = night_match(found, slots_of(job, files), from_digests(sorted(rejects)), job.cfg.dedupe, partitions, groups)
    changes, untouched = changes_of(job, files, matched)
    replaced = {item.name for item in files if item.fingerprint == job.fingerprint} - set(untouched)
    kept = base.files.keys() - replaced if base.is_usable else set[str]()
    return Night(
        base=base,
        objects=list(objects),
        sources=sources,
        carried=sorted(kept.union(untouched)),
        shards=shards_of_rows(job, objects, rows_to_embed(partitions, groups), versions, base.number),
        changes=changes,
        rejects=rejects,
        difference=replace(found, added=counted.added, changed=counted.changed, deleted=counted.deleted + unknown_documents(base, went)),
        matched=matched,
        forgotten=forgotten_rows(base, went, came, sources, versions),
        partitions=partitions,
    )


def keys_that_came(base: Base, sources: Sequence[SourceVersion], versions: Versions) -> KeySet:
    """Keys of the object versions that the parent does not have, or of all, as `keys_that_went`. Owners are numbered as in `sources`."""
    came = ((number, item) for number, item in enumerate(sources) if item.object_id not in base.sources or not base.has_keys)
    return KeySet(owners_of(came, versions), versions.keys)


def keys_that_went(job: Job, base: Base, sources: Sequence[SourceVersion], versions: Versions) -> KeySet:
    """Keys of the parent's object versions that are not there any more. Where some are lost: of all documents in its data files."""
    if not base.has_keys:
        return slots_of(job, [candidate(job.fingerprint, item, BASE) for item in base.files.values()])
    present = {item.object_id for item in sources}
    went = enumerate(item for item in base.sources.values() if item.object_id not in present)
    return KeySet(owners_of(went, versions), versions.keys)


def unknown_documents(base: Base, went: KeySet) -> int:
    """Documents of the parent whose keys and files are both lost. They are taken for deleted, so that a guard can hold the run back."""
    return base.parent.documents - went.documents if base.parent and not base.has_keys else 0


def owners_of(numbered: Iterable[tuple[int, SourceVersion]], versions: Versions) -> list[Owner]:
    return [Owner(number, item.object_id, item.rows - item.rejects - versions.erased_rows(item.object_id)) for number, item in numbered]


def forgotten_rows(base: Base, went: KeySet, came: KeySet, sources: Sequence[SourceVersion], versions: Versions) -> int:
    """How many rows of the source have erased ids."""
    if not len(versions.erased):
        return 0
    if not base.is_usable or base.parent is None:
        return sum(versions.erased_rows(item.object_id) for item in sources)
    before, after = (sum(versions.erased_rows(owner.place) for owner in keys.owners) for keys in (went, came))
    return base.parent.forgotten - before + after


def known_rejects(job: Job, base: Base, files: Sequence[Candidate], retried: Collection[str]) -> Rejects:
    """The contents that are not tried again: rejects of the parent, and of files that no snapshot lists yet."""
    orphans = [item.name for item in files if item.state == ORPHAN and item.fingerprint == job.fingerprint]
    known = {content: (item.reason, item.detail) for content, item in base.rejected.items()} | rejected_in(job, orphans).reasons
    return {content: why for content, why in known.items() if why[0] not in retried}
