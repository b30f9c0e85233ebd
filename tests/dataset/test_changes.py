"""Differences of two sides against a model of plain Python."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.dataset.changes import ROW_KEY, RowKeys, changed_rows, changes_of


class Row(NamedTuple):
    key: int
    vector: int
    rest: int


class Sent(NamedTuple):
    """A change set with the rows themselves."""

    upserts: list[tuple[Row, bool, int]]  # row, vector_changed, rows_of_key
    deletes: list[int]  # keys


rows = st.builds(Row, st.integers(0, 5), st.integers(0, 2), st.integers(0, 1))
sides = st.lists(rows, max_size=14)


def keys_of(side: Sequence[Row]) -> RowKeys:
    """Rows with hashes of which half share their first 64 bits with others."""
    keys = np.zeros(len(side), ROW_KEY)
    for name, numbers in (
        ("key", [row.key for row in side]),
        ("vector", [row.vector for row in side]),
        ("rest", [row.rest for row in side]),
    ):
        keys[name] = np.array([(number % 2, number) for number in numbers], np.uint64).reshape(-1, 2)
    return keys


def sent(old: Sequence[Row], new: Sequence[Row]) -> Sent:
    changes = changes_of(keys_of(old), keys_of(new))
    marks = zip(changes.vector_changed.tolist(), changes.rows_of_key.tolist(), strict=True)
    upserts = [(new[index], *mark) for index, mark in zip(changes.upserts.tolist(), marks, strict=True)]
    return Sent(upserts, [old[index].key for index in changes.deletes.tolist()])


def changed_keys(old: Sequence[Row], new: Sequence[Row]) -> set[int]:
    return {int(key) for side in changed_rows(keys_of(old), keys_of(new)) for _, key in side["key"]}


def applied(target: Sequence[Row], changes: Sent) -> Counter[Row]:
    """Replaces the group of every key, then deletes."""
    groups: dict[int, list[Row]] = defaultdict(list)
    for row in target:
        groups[row.key].append(row)
    for key in {row.key for row, _, _ in changes.upserts}:
        groups[key] = [row for row, _, _ in changes.upserts if row.key == key]
    for key in changes.deletes:
        groups.pop(key, None)
    return Counter(row for group in groups.values() for row in group)


@given(sides, sides)
def test_changes_applied_to_the_old_rows_give_the_new_ones(old: list[Row], new: list[Row]) -> None:
    changes = sent(old, new)
    assert applied(old, changes) == Counter(new)
    assert applied(new, changes) == Counter(new), "a second time changes nothing"
    interrupted = list(applied(old, Sent(changes.upserts, [])).elements())
    assert applied(interrupted, changes) == Counter(new), "neither does a second time after a crash before the deletes"


@given(st.lists(sides, min_size=3, max_size=4))
def test_one_step_is_the_same_as_its_nights_one_after_the_other(nights: list[list[Row]]) -> None:
    target = nights[0]
    for before, after in pairwise(nights):
        target = list(applied(target, sent(before, after)).elements())
    assert Counter(target) == applied(nights[0], sent(nights[0], nights[-1]))


@given(sides, sides)
def test_nothing_is_sent_that_did_not_change(old: list[Row], new: list[Row]) -> None:
    changes = sent(old, new)
    before, after = defaultdict[int, Counter[Row]](Counter), defaultdict[int, Counter[Row]](Counter)
    for rows_of, side in ((before, old), (after, new)):
        for row in side:
            rows_of[row.key][row] += 1
    changed = {key for key in before.keys() | after.keys() if before[key] != after[key]}
    assert {row.key for row, _, _ in changes.upserts} | set(changes.deletes) == changed
    assert changed_keys(old, new) == changed
    assert len(changes.deletes) == len(set(changes.deletes))
    for row, vector_changed, rows_of_key in changes.upserts:
        assert rows_of_key == after[row.key].total()
        payload_alone = before[row.key].total() == 1 == rows_of_key and next(iter(before[row.key])).vector == row.vector
        assert vector_changed is not payload_alone
    assert changes_of(keys_of(old), keys_of(new)).added == len([key for key in changed if not before[key]])


@given(sides, sides, sides)
def test_rows_on_both_sides_make_no_change_of_their_own(old: list[Row], new: list[Row], shared: list[Row]) -> None:
    """Rows of shared files are given on both sides, and only for keys that changed."""
    beside = [row for row in shared if row.key in changed_keys(old, new)]
    assert applied(old + shared, sent(old + beside, new + beside)) == Counter(new + shared)


def test_many_rows_that_only_moved_cancel_out() -> None:
    random = np.random.default_rng(0)
    old = np.zeros(100_000, ROW_KEY)
    for name in ("key", "vector", "rest"):
        old[name] = random.integers(0, 2**63, (len(old), 2))
    new = old.copy()
    new["rest"][:100] += np.uint64(1)
    new = random.permutation(new[:-50])
    changes = changes_of(old, new)
    assert (len(changes.upserts), len(changes.deletes), changes.added) == (100, 50, 0)
    assert not changes.vector_changed.any()
