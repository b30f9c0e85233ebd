import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.text.batches import pack_batches

LENGTHS = st.lists(st.integers(1, 5000), max_size=200)


@given(LENGTHS, st.integers(1, 8000))
def test_every_document_is_in_exactly_one_batch_within_budget(lengths: list[int], budget: int) -> None:
    batches = pack_batches(np.array(lengths, np.int64), budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or sum(lengths[index] for index in batch) <= budget


@given(LENGTHS, st.integers(1, 8000))
def test_batches_hold_similar_lengths(lengths: list[int], budget: int) -> None:
    ordered = [lengths[index] for batch in pack_batches(np.array(lengths, np.int64), budget) for index in batch]
    assert ordered == sorted(lengths, reverse=True)


@given(LENGTHS, st.integers(5000, 8000))
def test_no_batch_could_have_taken_the_next_document(lengths: list[int], budget: int) -> None:
    batches = pack_batches(np.array(lengths, np.int64), budget)
    for batch, following in itertools.pairwise(batches):
        assert sum(lengths[index] for index in batch) + lengths[following[0]] > budget
