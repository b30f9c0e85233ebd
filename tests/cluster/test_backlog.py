"""Whatever waits is handed out once, and actors of one speed end together."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cluster.backlog import MIN_PIECE_BYTES, Backlog, useful_actors
from bulkembed.shards import Part, Shard

MIB = 1 << 20


def shards(sizes: list[int], rows: int = 1000) -> list[Shard]:
    return [Shard((Part(f"o{n}", "u", "p", "v", "jsonl", 0, rows, rows),), size) for n, size in enumerate(sizes)]


@given(st.lists(st.integers(0, 5 * MIB), max_size=20), st.integers(1, 40), st.integers(1, 50))
def test_every_row_is_handed_out_once_and_in_order(sizes: list[int], actors: int, rows: int) -> None:
    backlog, taken = Backlog(shards(sizes, rows)), list[Shard]()
    while backlog:
        taken.append(backlog.take(actors))
    assert [(part.object_id, row) for each in taken for part in each.parts for row in part.object_rows] == [
        (f"o{n}", row) for n in range(len(sizes)) for row in range(rows)
    ]
    assert sum(each.text_bytes for each in taken) == sum(sizes)
    assert backlog.text_bytes == 0


@given(st.lists(st.integers(0, 5 * MIB), max_size=20))
def test_one_actor_gets_shards_whole(sizes: list[int]) -> None:
    backlog = Backlog(shards(sizes))
    assert [backlog.take(1) for _ in sizes] == shards(sizes)


def test_what_was_lost_comes_first_and_is_not_cut_again() -> None:
    first, second = shards([8 * MIB, 8 * MIB])
    backlog = Backlog([second])
    backlog.put_back(*first.halves())
    assert [backlog.take(16).id for _ in range(2)] == [half.id for half in first.halves()]
    assert backlog.take(16).rows < second.rows


@pytest.mark.parametrize("actors", [2, 16, 32])
@pytest.mark.parametrize("place", [0, 80, 160])
def test_actors_end_together_even_where_one_shard_has_fifty_times_the_text(actors: int, place: int) -> None:
    sizes = [MIB] * 160
    sizes.insert(place, 50 * MIB)
    backlog, free, pieces = Backlog(shards(sizes)), [0.0] * actors, 0
    while backlog:
        heapq.heapreplace(free, free[0] + backlog.take(actors).text_bytes)
        pieces += 1
    assert max(free) <= 1.02 * sum(sizes) / actors
    assert pieces < len(sizes) + 24 * actors + 100


def test_actors_are_as_many_as_there_is_work_for() -> None:
    assert useful_actors(shards([100, 100])) == 2
    assert useful_actors(shards([40 * MIB])) == 10
    assert MIN_PIECE_BYTES < MIB
