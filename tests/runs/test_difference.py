"""The difference of keys beside a model of counters; groups of rows whose 64 mixed bits collide."""

from __future__ import annotations

from collections import Counter
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import BulkembedError
from bulkembed.row_keys import Hashes, Keys
from bulkembed.runs import joins
from bulkembed.runs.difference import difference
from bulkembed.runs.joins import group, require_sum
from tests.support.keys import Document, documents, documents_of, hashes, keys, places_of


@given(documents(), documents())
def test_the_difference_is_that_of_two_counters(old: list[Document], new: list[Document]) -> None:
    found = difference(keys(old), keys(new))
    gone, came = Counter(old) - Counter(new), Counter(new) - Counter(old)
    assert Counter(documents_of(found.gone)) == gone
    assert Counter(documents_of(found.came)) == came
    went, arrived = (Counter(document.id for document in side.elements()) for side in (gone, came))
    assert found.changed == (went & arrived).total()
    assert found.added == (arrived - went).total()
    assert found.deleted == (went - arrived).total()


@given(documents(), documents())
def test_of_equal_keys_the_first_cancel_out(old: list[Document], new: list[Document]) -> None:
    found = difference(keys(old), keys(new))
    for side, other, rest in ((old, new, found.gone), (new, old, found.came)):
        expected, cancelling = [], Counter(other)
        for document, place in zip(side, places_of(keys(side)), strict=True):
            if cancelling[document]:
                cancelling[document] -= 1
            else:
                expected.append(place)
        assert places_of(rest) == expected


@given(documents(), documents(), st.randoms(use_true_random=False))
def test_the_order_of_the_keys_makes_no_difference(old: list[Document], new: list[Document], random: Random) -> None:
    expected = difference(keys(old), keys(new))
    found = difference(shuffled(keys(old), random), shuffled(keys(new), random))
    for one, other in ((found.gone, expected.gone), (found.came, expected.came)):
        assert documents_of(one) == documents_of(other)
        assert places_of(one) == places_of(other)


def shuffled(whole: Keys, random: Random) -> Keys:
    order = list(range(len(whole)))
    random.shuffle(order)
    return whole.take(np.array(order, np.int64))


@pytest.mark.parametrize("bits", [0, 1, 3])
@given(old=documents(), new=documents())
def test_keys_that_share_their_mixed_bits_are_told_apart(bits: int, old: list[Document], new: list[Document]) -> None:
    mix = joins.mix
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(joins, "mix", lambda columns: mix(columns) & np.uint64(bits))
        test_the_difference_is_that_of_two_counters.hypothesis.inner_test(old, new)  # type: ignore[attr-defined]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3))))
def test_rows_are_in_one_group_where_all_hashes_are_equal(rows: list[tuple[int, int]]) -> None:
    cut = len(rows) // 3
    groups = group(parts([row[0] for row in rows], cut), parts([row[1] for row in rows], cut))
    numbers = groups.numbers.tolist()
    assert len(set(zip(rows, numbers, strict=True))) == len(set(rows)) == len(set(numbers)) == groups.count


def parts(numbers: list[int], cut: int) -> list[Hashes]:
    return [hashes(numbers[:cut]), hashes(numbers[cut:])]


def test_every_bit_of_a_key_counts() -> None:
    for word in range(6):
        for bit in (0, 31, 32, 63):
            words = np.zeros((2, 3, 2), np.uint64)
            words[1, word // 2, word % 2] = np.uint64(1) << np.uint64(bit)
            assert group(*([words[:, column]] for column in range(3))).count == 2


def test_a_sum_that_is_wrong_raises() -> None:
    with pytest.raises(BulkembedError, match="the keys: 1,000 rows, not 999"):
        require_sum("the keys", 1000, 999)
