from itertools import pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bulkembed.shards import FileName, Kind, Part, Shard, ShardId

ROWS = st.integers(0, 10**10 - 1)
OBJECT_IDS = st.text("aZ9.=_-", min_size=1, max_size=40).map("{}-0123456789abcdef".format)
STEMS = st.builds(ShardId, OBJECT_IDS, ROWS, ROWS, ROWS)
DIGESTS = st.integers(0, 2**64 - 1).map("{:016x}".format)
KINDS: list[Kind] = ["e", "w"]
NAMES = STEMS.map(FileName) | st.builds(FileName, STEMS, st.sampled_from(KINDS), st.integers(0, 10**9), DIGESTS)


def part(number: int, start: int, rows: int, chosen: set[int] | None) -> Part:
    """Rows of an object of its own: all of a range, or those of `chosen` that lie in it."""
    picks = None if chosen is None else tuple(sorted({start + row % rows for row in chosen}))
    return Part(f"o{number}", f"u{number}", f"p{number}", "v", "jsonl", start, start + rows, 10_000, offset=3, skip=5, picks=picks)


CHOSEN = st.none() | st.sets(st.integers(0, 99), min_size=1, max_size=20)
PARTS = st.lists(st.tuples(st.integers(0, 50), st.integers(1, 60), CHOSEN), min_size=1, max_size=5)
SHARDS = st.builds(
    lambda parts, text_bytes, parent: Shard(tuple(part(n, *values) for n, values in enumerate(parts)), text_bytes, parent),
    PARTS,
    st.integers(0, 10**9),
    st.integers(0, 3),
)


def rows_of(*shards: Shard) -> list[tuple[str, int]]:
    return [origin for shard in shards for origin in shard.origins(range(shard.rows))]


@given(STEMS)
def test_a_shard_id_comes_back_from_its_text(shard_id: ShardId) -> None:
    assert ShardId.parse(str(shard_id)) == shard_id


@given(NAMES)
def test_a_file_name_comes_back_from_its_text(name: FileName) -> None:
    assert FileName.parse(str(name)) == name


@pytest.mark.parametrize(
    "text", ["", "a", "a-1-2-of-3", "-0000000000-0000000001-of-0000000001", "a-0000000000-0000000001-of-0000000001.json"]
)
def test_another_name_is_no_shard_id(text: str) -> None:
    for parse in (ShardId.parse, FileName.parse):
        with pytest.raises(ValueError, match="is no shard id"):
            parse(text)


@given(SHARDS)
def test_a_name_tells_the_rows_where_they_are_a_range_planned_without_a_parent(shard: Shard) -> None:
    name, first = FileName.parse(shard.id), shard.parts[0]
    assert name.stem == first.stem
    assert (not name.kind) == (len(shard.parts) == 1 and first.picks is None and shard.parent == 0)
    assert name.parent == (shard.parent if name.kind else 0)
    if not name.kind:
        assert ShardId.parse(shard.id).row_range == (first.start, first.stop)


@given(SHARDS, SHARDS)
def test_shards_of_other_rows_have_other_names(shard: Shard, other: Shard) -> None:
    assume(rows_of(shard) != rows_of(other))
    assert shard.id != other.id


@given(SHARDS, st.lists(st.integers(0, 300), max_size=6))
def test_slices_part_the_rows_of_a_shard(shard: Shard, cuts: list[int]) -> None:
    borders = [0, *sorted({cut for cut in cuts if 0 < cut < shard.rows}), shard.rows]
    slices = [shard.slice(first, last) for first, last in pairwise(borders)]
    assert [each.rows for each in slices] == [last - first for first, last in pairwise(borders)]
    assert rows_of(*slices) == rows_of(shard)
    assert sum(each.text_bytes for each in slices) == shard.text_bytes
    assert len({each.id for each in slices}) == len(slices)
    assert {each.parent for each in slices} == {shard.parent}
    for each in (part for piece in slices for part in piece.parts):
        number = int(each.object_id[1:])
        assert each.skip - 5 == each.start - shard.parts[number].start  # the line start stays, and more rows are skipped
    assert shard.slice(0, shard.rows) == shard


@given(SHARDS)
def test_halving_to_single_rows_loses_nothing(shard: Shard) -> None:
    waiting, single = [shard], list[Shard]()
    while waiting:
        each = waiting.pop()
        if each.rows == 1:
            single.append(each)
        else:
            waiting.extend(reversed(each.halves()))
    assert rows_of(*single) == rows_of(shard)
    assert sum(each.text_bytes for each in single) == shard.text_bytes
    assert len({each.id for each in single}) == shard.rows


@pytest.mark.parametrize(("first", "last"), [(0, 0), (3, 2), (-1, 2), (0, 11)])
def test_a_slice_of_rows_that_are_not_there_is_refused(first: int, last: int) -> None:
    with pytest.raises(ValueError, match="has no rows"):
        Shard((part(0, 0, 10, None),)).slice(first, last)


@pytest.mark.parametrize("picks", [(3, 3), (4, 3), (1, 4), (4, 10)])
def test_picks_are_ascending_rows_of_the_range(picks: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="ascending rows"):
        Part("o", "u", "p", "v", "jsonl", 2, 10, 10, picks=picks)


def test_a_receipt_names_the_first_object_and_counts_the_others() -> None:
    parts = tuple(part(number, 0, 2, None) for number in (0, 1, 0, 2))
    assert [Shard(parts[:count]).source for count in (1, 2, 3, 4)] == ["u0", "u0 and 1 more", "u0 and 1 more", "u0 and 2 more"]
