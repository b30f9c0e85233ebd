"""Every document that came or went is matched once, with the content it has, by the rules of night; beside a model of counters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random
from typing import NamedTuple, TypeVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import BulkembedError
from bulkembed.row_keys import Keys
from bulkembed.runs.difference import difference
from bulkembed.runs.matching import BASE, FOREIGN, ORPHAN, Match, match
from tests.support.keys import Document, documents, documents_of, hashes, keys, places_of

T = TypeVar("T")


class Case(NamedTuple):
    """A night: `gone` are documents of the parent that have a slot, or whose content is a reject's."""

    came: list[Document]
    gone: list[Document]
    slots: list[tuple[Document, int]]  # in files of four, whose slots have one state
    rejected: list[int]
    dedupe: bool

    def matched(self) -> Match:
        came, gone, slots, states = self.arrays()
        return match(came, gone, slots, states, hashes(self.rejected), self.dedupe)

    def arrays(self) -> tuple[Keys, Keys, Keys, np.ndarray[tuple[int], np.dtype[np.int8]]]:
        states = np.array([state for _, state in self.slots], np.int8)
        return keys(self.came), keys(self.gone), keys([document for document, _ in self.slots]), states


@st.composite
def cases(draw: st.DrawFn) -> Case:
    old, new = draw(documents()), draw(documents())
    changes = difference(keys(old), keys(new))
    rejected = sorted(draw(st.sets(st.integers(0, 4), max_size=2)))
    base = [document for document in old if document.content not in rejected]
    slots = [(document, BASE) for document in base]
    for state in (ORPHAN, FOREIGN):
        slots += [(document, state) for document in draw(documents(max_size=5))]
    return Case(documents_of(changes.came), documents_of(changes.gone), slots, rejected, draw(st.booleans()))


@given(cases())
def test_every_document_is_in_one_place(case: Case) -> None:
    found = case.matched()
    open_rows = sorted([*found.adds[:, 0], *found.remembered, *found.embed, *found.twins])
    assert len(set(open_rows)) == len(open_rows) == len(case.came) - len(found.adopted)
    assert Counter(document for document, _ in take(case.slots, found.adopted)) + Counter(take(case.came, open_rows)) == Counter(case.came)
    dead = Counter(document for document, _ in take(case.slots, found.drops))
    assert dead + Counter(take(case.gone, found.forgotten)) == Counter(case.gone)


def take(items: Sequence[T], indices: Iterable[int]) -> list[T]:
    return [items[index] for index in indices]


@given(cases())
def test_only_slots_of_the_right_state_are_taken(case: Case) -> None:
    found = case.matched()
    assert all(state == BASE for _, state in take(case.slots, found.drops))
    assert all(state == ORPHAN for _, state in take(case.slots, found.adopted))
    orphans = Counter(document for document, state in case.slots if state == ORPHAN)
    assert len(found.adopted) == (orphans & Counter(case.came)).total()


@given(cases())
def test_only_contents_that_have_no_vector_are_embedded(case: Case) -> None:
    found = case.matched()
    for row, slot in found.adds:
        assert case.slots[slot][0].content == case.came[row].content
    held = {document.content for document, _ in case.slots}
    assert all(case.came[row].content in set(case.rejected) - held for row in found.remembered)
    rest = [case.came[row].content for row in [*found.embed, *found.twins]]
    assert not set(rest) & (held | set(case.rejected))
    if not case.dedupe:
        assert not len(found.twins)
    else:
        assert len(set(rest)) == len(found.embed)
        first = {case.came[row].content: row for row in reversed([*range(len(case.came))])}
        assert all(row == first[case.came[row].content] for row in found.embed)


@given(cases())
def test_a_vector_comes_from_a_dead_slot_first(case: Case) -> None:
    found, slots = case.matched(), case.arrays()[2]
    touched = set(slots.owners[[*found.drops, *found.adopted]].tolist())
    adopted = set(found.adopted.tolist())

    def preference(slot: int) -> int:
        state, changes = case.slots[slot][1], slots.owners[slot] in touched
        dead = slot in found.drops or (state == ORPHAN and changes and slot not in adopted)
        return 0 if dead else 1 if changes else 2 + state

    taken: dict[int, list[int]] = {}
    for row, slot in found.adds.tolist():
        taken.setdefault(case.came[row].content, []).append(slot)
    for content, used in taken.items():
        offered = sorted((preference(slot), slot) for slot, (document, _) in enumerate(case.slots) if document.content == content)
        turn = [slot for rank, slot in offered if not rank] or [offered[0][1]]
        assert used == [turn[number % len(turn)] for number in range(len(used))]


@given(cases(), st.randoms(use_true_random=False))
def test_the_order_of_the_input_makes_no_difference(case: Case, random: Random) -> None:
    came, gone, slots, states = case.arrays()
    orders = [np.array(shuffled(len(side), random), np.int64) for side in (came, gone, slots)]
    found = match(came.take(orders[0]), gone.take(orders[1]), slots.take(orders[2]), states[orders[2]], hashes(case.rejected), case.dedupe)
    expected = case.matched()
    for name, order in (("drops", 2), ("adopted", 2), ("remembered", 0), ("embed", 0), ("twins", 0), ("forgotten", 1)):
        assert sorted(orders[order][getattr(found, name)]) == getattr(expected, name).tolist()
    assert sorted(zip(orders[0][found.adds[:, 0]], orders[2][found.adds[:, 1]], strict=True)) == [tuple(pair) for pair in expected.adds]


def shuffled(count: int, random: Random) -> list[int]:
    order = list(range(count))
    random.shuffle(order)
    return order


def test_a_document_that_went_and_has_no_slot_raises() -> None:
    went = [Document(1, 1, 0), Document(2, 2, 0), Document(2, 2, 0)]
    slots = [(Document(1, 1, 0), ORPHAN), (Document(2, 2, 0), BASE), (Document(2, 3, 0), BASE)]
    with pytest.raises(BulkembedError, match="2 of 3 documents that went have no row in the 3 rows of data files"):
        Case([], went, slots, [], True).matched()
    assert len(Case([], went, slots, [1, 2], True).matched().forgotten) == 2


def test_two_ids_that_swap_their_texts_swap_their_slots() -> None:
    before, after = [Document(1, 1, 0), Document(2, 2, 0)], [Document(1, 2, 0), Document(2, 1, 0)]
    found = Case(after, before, [(document, BASE) for document in before], [], True).matched()
    assert found.adds.tolist() == [[0, 1], [1, 0]]
    assert found.drops.tolist() == [0, 1]


def test_nothing_is_matched_with_nothing() -> None:
    found = match(Keys.empty(), Keys.empty(), Keys.empty(), np.empty(0, np.int8), hashes([]), True)
    assert not any(len(getattr(found, name)) for name in Match.__dataclass_fields__)


def test_twins_take_the_vector_of_a_new_file() -> None:
    """The same function after embedding: the slots are those of the new files."""
    twins = [Document(1, 1, 0), Document(2, 1, 0), Document(3, 2, 0)]
    found = Case(twins, [], [(Document(9, 1, 0), BASE)], [2], True).matched()
    assert found.adds.tolist() == [[0, 0], [1, 0]]
    assert found.remembered.tolist() == [2]
    assert places_of(keys(twins))[2] == (0, 2)
