import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.records import Shard, ShardId

ROWS = st.integers(0, 10**10 - 1)


@given(st.from_regex(r"[A-Za-z0-9.=_-]{1,40}-[0-9a-f]{16}", fullmatch=True), ROWS, ROWS, ROWS)
def test_a_shard_id_comes_back_from_its_text(object_id: str, start: int, stop: int, total: int) -> None:
    shard_id = ShardId(object_id, start, stop, total)
    assert ShardId.parse(str(shard_id)) == shard_id
    assert Shard(object_id, "uri", "v", "jsonl", start, stop, total).id == str(shard_id)


@pytest.mark.parametrize(
    "text", ["", "a", "a-1-2-of-3", "-0000000000-0000000001-of-0000000001", "a-0000000000-0000000001-of-0000000001.json"]
)
def test_another_name_is_no_shard_id(text: str) -> None:
    with pytest.raises(ValueError, match="is no shard id"):
        ShardId.parse(text)
