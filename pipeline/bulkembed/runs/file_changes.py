"""What matching found -> the files that stay as they are, and those that are rewritten with fewer, other or more documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import schema
from bulkembed.dataset import file_keys, paths
from bulkembed.dataset.file_keys import FileKeys
from bulkembed.records import Receipt
from bulkembed.row_keys import Keys
from bulkembed.runs.base import Candidate
from bulkembed.runs.buckets import KeySet, Owner
from bulkembed.runs.job import Job
from bulkembed.runs.mapper import Mapper
from bulkembed.runs.matching import BASE, FOREIGN
from bulkembed.runs.partitions import NightMatch, Places, rows_by_owner
from bulkembed.runs.rewrite import FileEdit, rewrite
from bulkembed.runs.versions import Versions
from bulkembed.shards import Part
from bulkembed.source.objects import SourceObject
from bulkembed.source.planning import part_of_rows
from bulkembed.source.reader import read_carried

Rows = npt.NDArray[np.int64]
NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class FileChange:
    """A file that is rewritten."""

    file: Candidate
    live: Rows | None  # first rows of the documents that stay; None: all
    slots: Rows  # (m,): first rows of the documents whose vectors m other documents get
    adds: Places  # (m, 2): object and row of those m documents


def slots_of(job: Job, files: Sequence[Candidate]) -> KeySet:
    """The documents in these files. Owners are numbered as the files are."""
    owners = [Owner(number, item, item.documents, item.state) for number, item in enumerate(files)]
    return KeySet(owners, partial(keys_in_file, job))


def keys_in_file(job: Job, item: Candidate) -> Keys:
    return read_file_keys(job, item).keys


def read_file_keys(job: Job, item: Candidate) -> FileKeys:
    uri = paths.data_uri(job.cfg.output, item.fingerprint, item.name)
    # Of another line's documents only the contents matter. It may have other kept columns.
    kept = () if item.state == FOREIGN else job.recipe.row_schema.keep_columns
    return file_keys.keys_of_file(job.store, uri, kept)


def changes_of(job: Job, files: Sequence[Candidate], matched: NightMatch) -> tuple[list[FileChange], list[str]]:
    """The files to rewrite, and the names of those that are whole as they are. The other files have no document for the dataset."""
    dropped, adopted, adds = map(rows_by_owner, (matched.drops, matched.adopted, matched.adds))
    changes, untouched = [], []
    for number, item in enumerate(files):
        gone, live = dropped.get(number, NO_ROWS), adopted.get(number, NO_ROWS)
        n_live = item.documents - len(gone) if item.state == BASE else len(live)
        added = adds.get(number, np.empty((0, 3), np.int64))
        if not len(added) and n_live in (0, item.documents):
            untouched += [item.name] if n_live else []
            continue
        if item.state == BASE and len(gone):
            live = np.setdiff1d(first_rows(job, item), gone)
        changes.append(FileChange(item, None if n_live == item.documents else live, added[:, 0], added[:, 1:]))
    return changes, untouched


def first_rows(job: Job, item: Candidate) -> Rows:
    """The first row of each document of a file."""
    return np.arange(item.rows) if item.rows == item.documents else read_file_keys(job, item).keys.rows


def edits_of(
    job: Job, parent: int, changes: Sequence[FileChange], objects: Sequence[SourceObject], versions: Versions, mapper: Mapper
) -> list[FileEdit]:
    """The changes with the ids and kept columns of the documents that are added, which are read again from the source."""
    adds = np.concatenate([np.empty((0, 2), np.int64), *(change.adds for change in changes)])
    order = np.lexsort((adds[:, 1], adds[:, 0]))
    wanted = rows_by_owner(adds[order]) if len(adds) else {}
    parts = [part_of_rows(objects[owner], versions.layout(objects[owner].id), rows) for owner, rows in wanted.items()]
    values = pa.concat_tables([schema.empty_table(job.carried), *mapper.map(partial(carried_rows, job), parts)])
    places = np.empty(len(adds), np.int64)
    places[order] = np.arange(len(adds))
    edits, first = [], 0
    for change in changes:
        last = first + len(change.adds)
        values_here = values.take(pa.array(places[first:last]))
        edits.append(FileEdit(change.file.fingerprint, change.file.name, change.live, change.slots, values_here, parent))
        first = last
    return edits


def carried_rows(job: Job, part: Part) -> pa.Table:
    """Ids and kept columns of some rows of an object."""
    return read_carried(job.store, (part,), job.recipe, job.carried)


def rewrite_all(job: Job, edits: Sequence[FileEdit], mapper: Mapper) -> list[Receipt]:
    """Receipts of the files that replace the old ones, in their order."""
    return [receipt for receipt in mapper.map(partial(rewrite_edit, job), edits) if receipt is not None]


def rewrite_edit(job: Job, edit: FileEdit) -> Receipt | None:
    return rewrite(edit, job)
