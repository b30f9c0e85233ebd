"""The difference and the match of a night, one partition of the keys at a time, so that no process holds more than one.

A night calls `night_difference`, `night_match` and, once the new files are there, `twin_match`. Between the steps the keys lie in
an exchange, by bucket: by id for the difference, by content for the match. Sums over all buckets are asserted after each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.dataset.file_keys import prefixes_of
from bulkembed.row_keys import Hashes, Keys
from bulkembed.runs import buckets
from bulkembed.runs.buckets import KeySet, Partitions, Prefixes, buckets_of, in_buckets, split
from bulkembed.runs.difference import difference
from bulkembed.runs.joins import Indices, Integers, require_sum
from bulkembed.runs.matching import Claims, States, assign, claim

OLD, NEW, GONE, CAME, SLOTS, TWINS, NEW_SLOTS, NONE, REST = "old", "new", "gone", "came", "slots", "twins", "new-slots", "none", "rest"
EMBED = "embed"  # tables of PLACES, by group of objects
PLACES = pa.schema([pa.field("owner", pa.int32()), pa.field("row", pa.int64())])
COUNTS = ("remembered", "embed", "twins")
Rows = npt.NDArray[np.int64]
Places = npt.NDArray[np.int64]  # (n, 2): owner and row of documents, sorted


@dataclass(frozen=True, eq=False)
class Changes:
    """What a difference found; its keys are in the exchange."""

    old: int
    new: int
    gone: int
    came: int
    added: int  # these three: see difference.Difference
    changed: int
    deleted: int
    contents: Prefixes  # of all that came or went, ascending, each once: only files with one of them have slots that matter


@dataclass(frozen=True, eq=False)
class NightMatch:
    """What becomes of the documents that came and went: see matching.Match."""

    drops: Places  # in data files
    adopted: Places  # in data files
    adds: npt.NDArray[np.int64]  # (n, 4): file and row of the slot, object and row of the document; sorted
    remembered: int  # how many; the keys of twins and the rows to embed are in the exchange
    embed: int
    twins: int
    remembered_contents: Hashes  # a hash for each document
    forgotten_contents: Hashes  # of rejects that went, a hash for each document
    twin_contents: Prefixes  # ascending, each once


@dataclass(frozen=True, eq=False)
class MatchTask:
    """What every bucket of a match needs to know."""

    partitions: Partitions
    came: str  # names in the exchange
    gone: str
    slots: str
    twins: str  # where twins are written
    states: States  # of each file, by its number
    groups: Integers | None  # of each object, by its number: the bucket for its rows that go to the engine; None: none may
    rejected: Hashes
    dedupe: bool


def night_difference(old: KeySet, new: KeySet, partitions: Partitions) -> Changes:
    """The keys of objects that went and of those that came -> what is in one and not in the other, in the exchange."""
    split(OLD, old, "ids", None, partitions)
    split(NEW, new, "ids", None, partitions)
    found = total(partitions.mapper.map(partial(difference_of_bucket, partitions), range(partitions.buckets)))
    partitions.exchange.remove(OLD, NEW)
    require_sum("keys of the parent in all buckets", found.old, old.documents)
    require_sum("keys of tonight in all buckets", found.new, new.documents)
    return found


def groups_of(changes: Changes, objects: Sequence[int]) -> Integers:
    """A group for each object, ascending: rows that came are about PARTITION_ROWS in each. `objects`: rows of all objects of the night."""
    count = -(-changes.came // buckets.PARTITION_ROWS)
    before = np.cumsum([0, *objects[:-1]], dtype=np.int64)[: len(objects)]
    return np.minimum(before * count // max(1, sum(objects)), max(0, count - 1)).astype(np.int32)


def night_match(changes: Changes, slots: KeySet, rejected: Hashes, dedupe: bool, partitions: Partitions, groups: Integers) -> NightMatch:
    """Matches what came and went with the slots. Rows to embed are in the exchange afterwards: see `rows_to_embed`.

    `slots`: all files that have one of `changes.contents`, others may be left out. `groups`: see `groups_of`."""
    split(SLOTS, slots, "contents", changes.contents, partitions)
    task = MatchTask(partitions, CAME, GONE, SLOTS, TWINS, states_of(slots), groups, rejected, dedupe)
    found = match_buckets(task)
    partitions.exchange.remove(CAME, GONE, SLOTS)
    require_sum("documents that came, in all buckets", placed(found), changes.came)
    require_sum("documents that went, in all buckets", len(found.drops) + len(found.forgotten_contents), changes.gone)
    return found


def twin_match(first: NightMatch, slots: KeySet, rejected: Hashes, partitions: Partitions) -> NightMatch:
    """Gives the twins of `first` the vectors of the new files. `slots`: these files; `rejected`: with the rejects of this night."""
    split(NEW_SLOTS, slots, "contents", first.twin_contents, partitions)
    found = match_buckets(MatchTask(partitions, TWINS, NONE, NEW_SLOTS, REST, states_of(slots), None, rejected, True))
    partitions.exchange.remove(TWINS, NEW_SLOTS)
    require_sum("twins in all buckets", placed(found), first.twins)
    require_sum("twins whose content has a vector or is a reject", placed(found) - found.embed - found.twins, first.twins)
    return found


def match_buckets(task: MatchTask) -> NightMatch:
    """Files that change anyway are known once every bucket has claimed its slots: hence two passes."""
    mapper, numbers = task.partitions.mapper, range(task.partitions.buckets)
    touched = np.unique(np.concatenate(list(mapper.map(partial(touched_by_bucket, task), numbers))))
    return joined(list(mapper.map(partial(match_of_bucket, task, touched), numbers)))


def rows_to_embed(partitions: Partitions, groups: Integers) -> Iterator[tuple[int, Rows]]:
    """The number of each object, and its rows that go to the engine, in source order. They leave the exchange."""
    for group in np.unique(groups).tolist():
        table = partitions.exchange.read_tables(EMBED, group, PLACES)
        found = np.stack([table[name].to_numpy().astype(np.int64) for name in PLACES.names], axis=1)
        yield from rows_by_owner(found[np.lexsort((found[:, 1], found[:, 0]))]).items()
    partitions.exchange.remove(EMBED)


def rows_by_owner(places: npt.NDArray[np.int64]) -> dict[int, npt.NDArray[np.int64]]:
    """The columns after the owner, for each owner: rows of documents, or of `adds` (n, 3): slot, object and row."""
    owners, starts = np.unique(places[:, 0], return_index=True)
    rest = places[:, 1] if places.shape[1] == 2 else places[:, 1:]
    return dict(zip(owners.tolist(), np.split(rest, starts[1:]), strict=False))


# What tasks do


def difference_of_bucket(partitions: Partitions, bucket: int) -> Changes:
    old, new = partitions.exchange.read(OLD, bucket), partitions.exchange.read(NEW, bucket)
    found = difference(old, new)
    sizes = len(old), len(new), len(found.gone), len(found.came)
    del old, new
    for name, keys in ((GONE, found.gone), (CAME, found.came)):
        partitions.exchange.write(name, bucket, in_buckets(keys, keys.contents, partitions.buckets))
    contents = np.unique(np.concatenate([prefixes_of(found.gone.contents), prefixes_of(found.came.contents)]))
    return Changes(*sizes, found.added, found.changed, found.deleted, contents)


def total(found: Iterable[Changes]) -> Changes:
    """The sums over all buckets."""
    every = list(found)
    counts = {item.name: sum(getattr(bucket, item.name) for bucket in every) for item in fields(Changes) if item.name != "contents"}
    return Changes(**counts, contents=np.unique(np.concatenate([bucket.contents for bucket in every])))


def states_of(slots: KeySet) -> States:
    states = np.zeros(max((owner.number + 1 for owner in slots.owners), default=0), np.int8)
    states[[owner.number for owner in slots.owners]] = [owner.state for owner in slots.owners]
    return states


def claimed(task: MatchTask, bucket: int) -> tuple[Keys, Keys, Keys, States, Hashes, Claims]:
    """What came, what went, the slots, their states and the rejects of one bucket, and the slots that are claimed."""
    came, gone, slots = (task.partitions.exchange.read(name, bucket) for name in (task.came, task.gone, task.slots))
    states = task.states[slots.owners]
    rejected = task.rejected[buckets_of(task.rejected, task.partitions.buckets) == bucket]
    return came, gone, slots, states, rejected, claim(came, gone, slots, states, rejected)


def touched_by_bucket(task: MatchTask, bucket: int) -> Integers:
    _, _, slots, _, _, claims = claimed(task, bucket)
    return claims.touched(slots)


def match_of_bucket(task: MatchTask, touched: Integers, bucket: int) -> NightMatch:
    came, gone, slots, states, rejected, claims = claimed(task, bucket)
    found = assign(came, slots, states, claims, touched, rejected, task.dedupe)
    twins = came.take(found.twins)
    task.partitions.exchange.write(task.twins, bucket, {bucket: twins})
    if task.groups is not None:
        task.partitions.exchange.write_tables(EMBED, bucket, in_groups(came, found.embed, task.groups))
    return NightMatch(
        drops=places(slots, found.drops),
        adopted=places(slots, found.adopted),
        adds=np.concatenate([places(slots, found.adds[:, 1]), places(came, found.adds[:, 0])], axis=1),
        remembered=len(found.remembered),
        embed=len(found.embed),
        twins=len(found.twins),
        remembered_contents=came.contents[found.remembered],
        forgotten_contents=gone.contents[found.forgotten],
        twin_contents=np.unique(prefixes_of(twins.contents)),
    )


def in_groups(came: Keys, embed: Indices, groups: Integers) -> dict[int, pa.Table]:
    """Owners and rows of these documents, by the group of the owner."""
    owners, rows = came.owners[embed], came.rows[embed]
    numbers = groups[owners]
    masks = {number: numbers == number for number in np.unique(numbers).tolist()}
    return {number: pa.table([owners[mask], rows[mask]], schema=PLACES) for number, mask in masks.items()}


def places(keys: Keys, indices: Indices) -> Places:
    return np.stack([keys.owners[indices].astype(np.int64), keys.rows[indices]], axis=1)


def joined(found: Sequence[NightMatch]) -> NightMatch:
    """All buckets in one: counts are added, and rows are sorted."""
    columns = {item.name: [getattr(bucket, item.name) for bucket in found] for item in fields(NightMatch)}
    joint: dict[str, Any] = {name: sum(parts) if name in COUNTS else sorted_rows(np.concatenate(parts)) for name, parts in columns.items()}
    return NightMatch(**joint)


def sorted_rows(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.sort(rows) if rows.ndim == 1 else rows[np.lexsort(rows.T[::-1])]


def placed(found: NightMatch) -> int:
    """How many documents that came have found their place."""
    return len(found.adopted) + len(found.adds) + found.remembered + found.embed + found.twins
