"""The rows of two snapshots as keys -> which rows changed, and which keys are gone. Pure arithmetic on hashes.

Rows are compared as multisets. All rows of one key are a group: when anything in a group changes, all its newer rows are sent."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Integers = npt.NDArray[np.int64]
RowKeys = npt.NDArray[np.void]  # (n,) of ROW_KEY
ROW_KEY = np.dtype(
    [
        ("key", np.uint64, 2),  # hash of the id; in chunk mode of the id and the index of the chunk
        ("vector", np.uint64, 2),  # hash of what the vector was made of
        ("rest", np.uint64, 2),  # hash of all other columns that count
        ("file", np.int32),  # index of the row's file in a list of data files
        ("row", np.int32),  # in that file
    ]
)


@dataclass(frozen=True, eq=False)
class Changes:
    """What leads from the old rows to the new ones."""

    upserts: Integers  # indices of new rows
    vector_changed: npt.NDArray[np.bool_]  # of each upsert: False where its key has one row on either side, and both have one vector
    rows_of_key: npt.NDArray[np.int32]  # of each upsert: how many new rows have its key
    deletes: Integers  # the index of an old row for each key that no new row has
    added: int  # keys that no old row has
    replaced: int  # old rows of keys that changed


@dataclass(frozen=True, eq=False)
class Groups:
    """The groups of two sides, by number: a group is all rows of one key."""

    of_old: Integers  # the group of each old row
    of_new: Integers
    n_old: Integers  # old rows of each group
    n_new: Integers
    changed: npt.NDArray[np.bool_]  # the group's rows differ as multisets
    same_vector: npt.NDArray[np.bool_]  # the group has one row on either side, and both vectors are made of the same


def changes_of(old: RowKeys, new: RowKeys) -> Changes:
    """The changes from `old` to `new`. Both must hold every row of a key that changed. They may hold any others."""
    groups = groups_of(old, new)
    sent, gone = groups.changed & (groups.n_new > 0), groups.changed & (groups.n_new == 0)
    upserts = np.flatnonzero(sent[groups.of_new])
    group = groups.of_new[upserts]
    return Changes(
        upserts=upserts,
        vector_changed=~groups.same_vector[group],
        rows_of_key=groups.n_new[group].astype(np.int32),
        deletes=np.sort(a_row_of(groups.of_old, len(gone))[gone]),
        added=int(np.count_nonzero(groups.n_old == 0)),
        replaced=int(groups.n_old[groups.changed].sum()),
    )


def changed_rows(old: RowKeys, new: RowKeys) -> tuple[RowKeys, RowKeys]:
    """The old and the new rows of all keys of which anything changed."""
    groups = groups_of(old, new)
    return old[groups.changed[groups.of_old]], new[groups.changed[groups.of_new]]


def groups_of(old: RowKeys, new: RowKeys) -> Groups:
    labels = equal_labels(np.concatenate([old["key"], new["key"]]))
    of_old, of_new = labels[: len(old)], labels[len(old) :]
    count = int(labels.max()) + 1 if len(labels) else 0
    n_old, n_new = np.bincount(of_old, minlength=count), np.bincount(of_new, minlength=count)
    single = np.flatnonzero((n_old == 1) & (n_new == 1))
    mine, theirs = old[a_row_of(of_old, count)[single]], new[a_row_of(of_new, count)[single]]
    same_vector, changed = np.zeros(count, np.bool_), n_old != n_new
    same_vector[single] = (mine["vector"] == theirs["vector"]).all(axis=1)
    changed[single] = ~same_vector[single] | (mine["rest"] != theirs["rest"]).any(axis=1)
    repeated = (n_old == n_new) & (n_old > 1)
    changed[differing(old, new, of_old, of_new, repeated)] = True
    return Groups(of_old, of_new, n_old, n_new, changed, same_vector)


def a_row_of(groups: Integers, count: int) -> Integers:
    """The index of one row of each group; 0 for a group that has none."""
    rows = np.zeros(count, np.int64)
    rows[groups] = np.arange(len(groups))
    return rows


def differing(old: RowKeys, new: RowKeys, of_old: Integers, of_new: Integers, among: npt.NDArray[np.bool_]) -> Integers:
    """Those groups `among` all whose old rows are another multiset than the new ones."""
    in_old, in_new = np.flatnonzero(among[of_old]), np.flatnonzero(among[of_new])
    rows = np.concatenate([old[in_old], new[in_new]])
    groups = np.concatenate([of_old[in_old], of_new[in_new]])
    signs = np.concatenate([np.full(len(in_old), -1), np.full(len(in_new), 1)])
    labels = equal_labels(np.column_stack([rows["vector"], rows["rest"], groups.astype(np.uint64)]))
    surplus = np.bincount(labels, signs)  # how many more new rows than old ones have these values
    return np.unique(groups[surplus[labels] != 0])


def starting_with(words: npt.NDArray[np.uint64], hashes: npt.NDArray[np.uint64]) -> Integers:
    """The indices of the hashes whose first word is one of `words`, which are ascending. Very few other hashes share one by chance."""
    if not len(words):
        return np.empty(0, np.int64)
    nearest = np.minimum(np.searchsorted(words, hashes[:, 0]), len(words) - 1)
    return np.flatnonzero(words[nearest] == hashes[:, 0])


def equal_labels(values: npt.NDArray[np.uint64]) -> Integers:
    """A number for each of the (n, k) values, from 0 on without gaps. Two have the same one where all k columns are equal.

    Hashes that differ nearly always differ in the first column. Sorting by one column takes a fifth of the time."""
    order = np.argsort(values[:, 0])
    steps = values[order[1:]] != values[order[:-1]]
    if np.any(~steps[:, 0] & steps.any(axis=1)):
        order = np.lexsort(values.T[::-1])
        steps = values[order[1:]] != values[order[:-1]]
    labels = np.zeros(len(values), np.int64)
    labels[order[1:]] = np.cumsum(steps.any(axis=1))
    return labels
