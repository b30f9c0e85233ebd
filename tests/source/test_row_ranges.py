from hypothesis import given
from hypothesis import strategies as st

from bulkembed.shards import ShardId
from bulkembed.source.row_ranges import cut_gap, disjoint, gaps

ROW_RANGES = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 100)).map(lambda pair: (min(pair), max(pair))), max_size=8)


@given(ROW_RANGES, st.integers(0, 100))
def test_gaps_and_covered_ranges_make_up_the_whole(covered: list[tuple[int, int]], total: int) -> None:
    rows = [row for start, stop in covered for row in range(start, stop) if row < total]
    missing = [row for start, stop in gaps(covered, total) for row in range(start, stop)]
    assert sorted({*rows, *missing}) == list(range(total))
    assert not set(rows) & set(missing)
    assert len(missing) == len(set(missing))


@given(st.lists(st.integers(0, 30), max_size=12), st.integers(1, 40), st.data())
def test_cut_loses_and_doubles_no_row(part_rows: list[int], max_rows: int, data: st.DataObject) -> None:
    total = sum(part_rows)
    start = data.draw(st.integers(0, total))
    stop = data.draw(st.integers(start, total))
    row_ranges = cut_gap((start, stop), part_rows, max_rows) if start < stop else []
    assert [row for first, last in row_ranges for row in range(first, last)] == list(range(start, stop))
    assert all(0 < last - first <= max_rows for first, last in row_ranges)


def test_cut_follows_row_groups_where_they_fit() -> None:
    assert cut_gap((0, 60), [20, 20, 20], 40) == [(0, 40), (40, 60)]
    assert cut_gap((0, 60), [20, 20, 20], 30) == [(0, 20), (20, 40), (40, 60)]
    assert cut_gap((0, 100), [100], 40) == [(0, 33), (33, 66), (66, 100)]


SPANS = st.tuples(st.integers(0, 99), st.integers(1, 30)).map(lambda pair: (pair[0], min(100, sum(pair))))


@given(st.lists(SPANS, max_size=8))
def test_overlapping_receipts_count_no_row_twice_and_none_is_left_out_in_vain(spans: list[tuple[int, int]]) -> None:
    chosen = [shard_id.row_range for shard_id in disjoint([ShardId("o", start, stop, 100) for start, stop in spans])]
    rows = [row for start, stop in chosen for row in range(start, stop)]
    assert len(rows) == len(set(rows))
    for start, stop in spans:
        assert (start, stop) in chosen or set(range(start, stop)) & set(rows), "what is left out overlaps what is chosen"
