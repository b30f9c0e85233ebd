"""What matching found -> the files that stay as they are, and those that are rewritten with fewer, other or more documents."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt

from bulkembed.dataset import file_keys, paths
from bulkembed.dataset.file_keys import FileKeys
from bulkembed.row_keys import Keys
from bulkembed.runs.base import Candidate
from bulkembed.runs.buckets import KeySet, Owner
from bulkembed.runs.job import Job
from bulkembed.runs.matching import BASE, FOREIGN
from bulkembed.runs.partitions import NightMatch, Places, rows_by_owner

Rows = npt.NDArray[np.int64]
NO_ROWS = np.empty(0, np.int64)


@dataclass(frozen=True, eq=False)
class FileChange:
    """A file that is rewritten."""

    file: Candidate
    dropped: Rows  # first rows of documents of the parent that go
    adopted: Rows  # first rows of documents that are live from now on, of a file that is not the parent's
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
        changes.append(FileChange(item, gone, live, added[:, 0], added[:, 1:]))
    return changes, untouched
