"""Rows with equal hashes are found. numpy alone: sorts of 64-bit words take 0.05 us a row, sorts of longer keys ten times that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bulkembed.errors import BulkembedError
from bulkembed.row_keys import Hashes, Keys

Words = npt.NDArray[np.uint64]
Integers = npt.NDArray[np.integer]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying loses no bit


@dataclass(frozen=True, eq=False)
class Groups:
    """The group of each of n rows. Rows with equal hashes are in the same group."""

    numbers: Indices  # (n,): the group of each row, from 0 on
    count: int

    def split(self, *lengths: int) -> list[Indices]:
        """The numbers of the first rows, of those after them, and so on: an array for each length."""
        return np.split(self.numbers, np.cumsum(lengths)[:-1])

    def sizes(self, numbers: Indices) -> Indices:
        """(count,): how many of these rows each group has."""
        return np.bincount(numbers, minlength=self.count)


def group_keys(*parts: Keys) -> Groups:
    """Groups by id, content and kept columns, of the rows of all parts in their order."""
    return group([part.ids for part in parts], [part.contents for part in parts], [part.kept for part in parts])


def group(*columns: Sequence[Hashes]) -> Groups:
    """Groups by one or more columns of hashes. Each column is given in parts, which have the same lengths in every column.

    Rows are sorted by 64 bits that all words are mixed into. Rows with equal bits and different words are told apart."""
    mixed = mix(columns)
    order = np.argsort(mixed)
    new_mix = differs(mixed[order])
    new_key = key_starts(columns, order, new_mix)
    if (new_key != new_mix).any():
        untangle(columns, order, new_mix, new_key)
        new_key = key_starts(columns, order, new_mix)
    numbers = np.empty(len(order), np.int64)
    numbers[order] = np.cumsum(new_key) - 1
    return Groups(numbers, int(new_key.sum()))


def words_of(columns: Sequence[Sequence[Hashes]]) -> Iterator[Callable[[], Words]]:
    """A function for each word of the columns that gives it for all rows: memory is held for one word at a time."""
    for parts in columns:
        for half in (0, 1):
            yield lambda parts=parts, half=half: np.concatenate([part[:, half] for part in parts])  # type: ignore[misc]


def mix(columns: Sequence[Sequence[Hashes]]) -> Words:
    """64 bits of each row, in which every bit of every word counts."""
    first, *others = words_of(columns)
    mixed = first()
    for word in others:
        mixed *= MULTIPLIER
        mixed += word()
    return mixed


def differs(values: npt.NDArray[np.generic]) -> Mask:
    """Where a value is not equal to the one before it; the first is not."""
    new = np.ones(len(values), np.bool_)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    return new


def key_starts(columns: Sequence[Sequence[Hashes]], order: Indices, new_mix: Mask) -> Mask:
    """Where a row in this order has not the hashes of the row before it."""
    new = new_mix.copy()
    for word in words_of(columns):
        new |= differs(word()[order])
    return new


def untangle(columns: Sequence[Sequence[Hashes]], order: Indices, new_mix: Mask, new_key: Mask) -> None:
    """Sorts, within `order`, the runs of equal mixed bits that hold different hashes, by all words. There is hardly ever one."""
    runs = np.cumsum(new_mix) - 1
    tangled = np.zeros(runs[-1] + 1, np.bool_)
    tangled[runs[new_key & ~new_mix]] = True
    places = np.flatnonzero(tangled[runs])
    rows = order[places]
    order[places] = rows[np.lexsort([*(word()[rows] for word in words_of(columns)), runs[places]])]


def in_groups(numbers: Indices, *ties: Integers) -> Indices:
    """The order that sorts rows by group and, within it, by the ties. The first tie weighs most."""
    order: Indices = np.lexsort([*reversed(ties), numbers])
    return order


def ranks(numbers: Indices, *ties: Integers) -> Indices:
    """The rank of each row within its group by the ties, from 0 on."""
    order = in_groups(numbers, *ties)
    places = np.arange(len(order))
    starts = np.maximum.accumulate(np.where(differs(numbers[order]), places, 0))
    result = np.empty(len(order), np.int64)
    result[order] = places - starts
    return result


def first_rows(numbers: Indices, owners: Integers, rows: Integers, limits: Indices) -> Mask:
    """Which rows are among the first of their group by (owner, row). `limits`: how many each group may have."""
    sizes = np.bincount(numbers, minlength=len(limits))
    chosen: Mask = (limits >= sizes)[numbers]
    some = np.flatnonzero(((limits > 0) & (limits < sizes))[numbers])
    chosen[some] = ranks(numbers[some], owners[some], rows[some]) < limits[numbers[some]]
    return chosen


def require_sum(what: str, found: int, expected: int) -> None:
    """Raises BulkembedError where a join has lost or doubled rows."""
    if found != expected:
        raise BulkembedError(f"{what}: {found:,} rows, not {expected:,}; nothing is published, since rows were lost or doubled; run again")
