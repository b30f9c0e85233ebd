"""Changes of files -> the files that replace them. The values of documents that are added are read again from the source.

Few values go by way of the driver. Many lie in the exchange meanwhile, by the files that they are for: no process holds them all."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa

from bulkembed import schema
from bulkembed.records import Receipt
from bulkembed.runs.buckets import Workplace
from bulkembed.runs.exchange import StoreExchange
from bulkembed.runs.file_changes import FileChange, Rows, read_file_keys
from bulkembed.runs.job import Job
from bulkembed.runs.joins import require_sum
from bulkembed.runs.mapper import Mapper
from bulkembed.runs.matching import BASE
from bulkembed.runs.partitions import rows_by_owner
from bulkembed.runs.rewrite import FileEdit, rewrite
from bulkembed.runs.versions import Versions
from bulkembed.shards import Part
from bulkembed.source.objects import SourceObject
from bulkembed.source.planning import part_of_rows
from bulkembed.source.reader import read_carried

VALUES = "values"  # in the exchange
VALUE_ROWS = 100_000  # documents whose values one process holds
FILES_PER_GROUP = 16  # at most, so that there is work for many tasks


@dataclass(frozen=True)
class Documents:
    """The objects of a night, whose rows the changes name."""

    objects: Sequence[SourceObject]
    versions: Versions

    def part(self, owner: int, rows: Rows) -> Part:
        item = self.objects[owner]
        return part_of_rows(item, self.versions.layout(item.id), rows)


def rewrite_all(
    job: Job, parent: int, changes: Sequence[FileChange], documents: Documents, work: Workplace, mapper: Mapper
) -> list[Receipt]:
    """Receipts of the files that replace the old ones, in the order of the changes."""
    if sum(len(change.adds) for change in changes) <= VALUE_ROWS:
        parts = (part for part, _ in parts_with_groups(documents, [changes]))
        values = pa.concat_tables([schema.empty_table(job.carried), *mapper.map(partial(carried_rows, job), parts)])
        outcomes = mapper.map(partial(rewrite_change, job, parent), filled(changes, values))
        return [receipt for receipt in outcomes if receipt is not None]
    exchange, groups = work.used_exchange(), list(groups_of(changes))
    for _ in mapper.map(partial(place_values, job, exchange), enumerate(parts_with_groups(documents, groups))):
        pass
    found = mapper.map(partial(rewrite_group, job, parent, exchange), enumerate(groups))
    receipts = [receipt for group in found for receipt in group]
    exchange.remove(VALUES)
    return receipts


def groups_of(changes: Sequence[FileChange]) -> Iterator[list[FileChange]]:
    """The changes in groups. The values of one group are few, or those of one file."""
    group: list[FileChange] = []
    rows = 0
    for change in changes:
        if group and (rows + len(change.adds) > VALUE_ROWS or len(group) == FILES_PER_GROUP):
            yield group
            group, rows = [], 0
        group.append(change)
        rows += len(change.adds)
    if group:
        yield group


def adds_of(changes: Sequence[FileChange]) -> Rows:
    """(n, 2): object and row of all documents that are added."""
    return np.concatenate([np.empty((0, 2), np.int64), *(change.adds for change in changes)])


def parts_with_groups(documents: Documents, groups: Sequence[Sequence[FileChange]]) -> Iterator[tuple[Part, Rows]]:
    """All documents that are added, in source order, in parts of one object; and for each row the number of its group."""
    adds = [adds_of(group) for group in groups]
    numbers = np.repeat(np.arange(len(groups)), list(map(len, adds)))
    rows = np.column_stack([np.concatenate(adds), numbers]) if adds else np.empty((0, 3), np.int64)
    rows = rows[np.lexsort((rows[:, 1], rows[:, 0]))]
    for owner, wanted in rows_by_owner(rows).items() if len(rows) else ():
        for first in range(0, len(wanted), VALUE_ROWS):
            piece = wanted[first : first + VALUE_ROWS]
            yield documents.part(owner, piece[:, 0]), piece[:, 1]


def filled(changes: Sequence[FileChange], values: pa.Table) -> Iterator[tuple[FileChange, pa.Table]]:
    """Each change with the values of its documents. `values`: those of all, in source order."""
    adds = adds_of(changes)
    require_sum("values of documents that are added", values.num_rows, len(adds))
    places = np.empty(len(adds), np.int64)
    places[np.lexsort((adds[:, 1], adds[:, 0]))] = np.arange(len(adds))
    first = 0
    for change in changes:
        last = first + len(change.adds)
        yield change, values.take(pa.array(places[first:last]))
        first = last


# What tasks do


def carried_rows(job: Job, part: Part) -> pa.Table:
    """Ids and kept columns of some rows of an object."""
    return read_carried(job.source_store, (part,), job.recipe, job.carried)


def place_values(job: Job, exchange: StoreExchange, numbered: tuple[int, tuple[Part, Rows]]) -> None:
    """Writes the values of a part into the exchange, by group."""
    producer, (part, groups) = numbered
    values = carried_rows(job, part)
    require_sum(f"rows of {part.uri}", values.num_rows, len(groups))
    tables = {int(group): values.filter(pa.array(groups == group)) for group in np.unique(groups)}
    exchange.write_tables(VALUES, producer, tables)


def rewrite_group(job: Job, parent: int, exchange: StoreExchange, numbered: tuple[int, Sequence[FileChange]]) -> list[Receipt]:
    number, changes = numbered
    values = exchange.read_tables(VALUES, number, job.carried)
    outcomes = (rewrite_change(job, parent, item) for item in filled(changes, values))
    return [receipt for receipt in outcomes if receipt is not None]


def rewrite_change(job: Job, parent: int, item: tuple[FileChange, pa.Table]) -> Receipt | None:
    change, values = item
    return rewrite(FileEdit(change.file.fingerprint, change.file.name, live_rows(job, change), change.slots, values, parent), job)


def live_rows(job: Job, change: FileChange) -> Rows | None:
    """First rows of the documents that stay; None: all."""
    item = change.file
    if item.state != BASE:
        return None if len(change.adopted) == item.documents else change.adopted
    if not len(change.dropped):
        return None
    first_rows = np.arange(item.rows) if item.rows == item.documents else read_file_keys(job, item).keys.rows
    return np.setdiff1d(first_rows, change.dropped)
