"""Whatever is lost, every row gets an outcome after a bounded number of attempts."""

from __future__ import annotations

from collections import deque

from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cluster.recovery import Recovery
from bulkembed.records import Cause
from bulkembed.shards import Part, Shard


def shard(start: int, stop: int) -> Shard:
    return Shard((Part("o", "o", "o", "v", "jsonl", start, stop, 1000, offset=0, skip=start),))


def play(first: Shard, poison: set[int], causes: st.DataObject | None = None) -> tuple[set[int], set[int], set[int], int]:
    """Rows done, rejected and failed, and attempts, where an attempt at a shard with a poisonous row is lost."""
    recovery, waiting = Recovery(), deque([first])
    done: set[int] = set()
    rejected: set[int] = set()
    failed: set[int] = set()
    attempts = 0
    while waiting:
        each = waiting.popleft()
        attempts += 1
        rows = set(each.parts[0].object_rows)
        noise: Cause | None = causes.draw(st.sampled_from([None, None, None, "node", "bystander"])) if causes else None
        cause: Cause | None = "engine" if rows & poison else noise
        if cause is None:
            assert not rows & (done | rejected)
            done |= rows
            continue
        verdict = recovery.judge(each, cause, alone=recovery.is_suspect(each))
        if verdict == "again":
            waiting.append(each)
        elif verdict == "halve":
            waiting.extend(recovery.halve(each))
        else:
            (rejected if verdict == "reject" else failed).update(rows)
    return done, rejected, failed, attempts


@given(st.integers(1, 200), st.sets(st.integers(0, 199), max_size=5))
def test_exactly_the_poisonous_rows_are_rejected(rows: int, poison: set[int]) -> None:
    mine = {row for row in poison if row < rows}
    done, rejected, failed, attempts = play(shard(0, rows), mine)
    assert (done, rejected, failed) == (set(range(rows)) - mine, mine, set())
    assert attempts <= 3 + len(mine) * (2 * 8 + 2)


@given(st.integers(1, 60), st.sets(st.integers(0, 59), max_size=2), st.data())
def test_lost_nodes_reject_nobody(rows: int, poison: set[int], data: st.DataObject) -> None:
    mine = {row for row in poison if row < rows}
    done, rejected, failed, _ = play(shard(0, rows), mine, data)
    assert rejected == mine - failed
    assert done | rejected | failed == set(range(rows))


def test_memory_halves_at_once_and_blames_only_one_document() -> None:
    recovery, each = Recovery(), shard(0, 8)
    assert recovery.judge(each, "memory", alone=False) == "halve"
    one = shard(0, 1)
    assert [recovery.judge(one, "memory", alone=True) for _ in range(2)] == ["again", "reject"]


@given(st.integers(2, 999), st.integers(0, 500))
def test_halves_are_the_shard(rows: int, start: int) -> None:
    whole = shard(start, start + rows)
    (first,), (second,) = (half.parts for half in Recovery().halve(whole))
    assert (first.start, first.stop, second.start, second.stop) == (start, second.start, first.stop, start + rows)
    assert (first.skip, second.skip) == (first.start, second.start)


def test_losses_without_success_end_the_run() -> None:
    recovery = Recovery()
    for number in range(40):
        recovery.judge(shard(number, number + 1), "engine", alone=True)
    assert recovery.is_hopeless(actors=1)
    assert not recovery.is_hopeless(actors=100)
    recovery.record_success()
    for number in range(400):
        recovery.judge(shard(number, number + 1), "node", alone=True)
    assert not recovery.is_hopeless(actors=1)
