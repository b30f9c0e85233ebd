"""Nights by partitions beside the functions that have all keys at once, with an exchange in memory and one in a store."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bulkembed.errors import BulkembedError
from bulkembed.row_keys import Keys
from bulkembed.runs import buckets, lookup, partitions
from bulkembed.runs.buckets import KeySet, Owner, Partitions, Workplace, batches_of
from bulkembed.runs.difference import difference
from bulkembed.runs.exchange import MemoryExchange, StoreExchange
from bulkembed.runs.mapper import LocalMapper, Mapper
from bulkembed.runs.matching import BASE, FOREIGN, ORPHAN, match
from bulkembed.runs.partitions import (
    Changes,
    NightMatch,
    groups_of,
    night_difference,
    night_match,
    rows_by_owner,
    rows_to_embed,
    twin_match,
)
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.keys import Document, documents, hashes, keys
from tests.support.runs import in_one_process, simulated

PLACED, COUNTED = ("drops", "adopted"), ("remembered", "embed", "twins")


class Source:
    """Objects of four documents, from which keys are read."""

    def __init__(self, whole: Keys, states: Sequence[int] = ()) -> None:
        numbers = sorted(set(whole.owners.tolist()))
        self.parts = {f"object {number}": whole.take(whole.owners == number) for number in numbers}
        owners = [
            Owner(number, name, len(part), (states or [BASE] * len(whole))[number])
            for number, (name, part) in zip(numbers, self.parts.items(), strict=True)
        ]
        self.keys = KeySet(owners, self.parts.__getitem__)


def in_memory(count: int) -> Partitions:
    return Partitions(count, MemoryExchange(), LocalMapper())


@settings(max_examples=60)
@given(documents(), documents(), documents(max_size=6), documents(max_size=6), st.integers(1, 5), st.booleans(), st.sets(st.integers(0, 4)))
def test_partitions_give_what_one_function_gives(
    old: list[Document], new: list[Document], orphans: list[Document], foreign: list[Document], count: int, dedupe: bool, refused: set[int]
) -> None:
    rejected = hashes(sorted(refused)[:2])
    slots, states = slots_of(old, orphans, foreign)
    parts = in_memory(count)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(buckets, "BATCH_ROWS", 6)
        changes = night_difference(Source(keys(old)).keys, Source(keys(new)).keys, parts)
        patched.setattr(buckets, "PARTITION_ROWS", 5)
        groups = groups_of(changes, [4] * -(-len(new) // 4))
        found = night_match(changes, Source(slots, states).keys, rejected, dedupe, parts, groups)
        embed = embedded(parts, groups)
    whole = difference(keys(old), keys(new))
    assert (changes.old, changes.new, changes.gone, changes.came) == (len(old), len(new), len(whole.gone), len(whole.came))
    assert (changes.added, changes.changed, changes.deleted) == (whole.added, whole.changed, whole.deleted)
    assert {name for name, _ in parts.exchange.held} <= {"twins"}  # type: ignore[attr-defined]
    assert not parts.exchange.tables  # type: ignore[attr-defined]
    require_equal(found, embed, whole.came, whole.gone, slots, states, rejected, dedupe)


def embedded(parts: Partitions, groups: Any) -> list[list[int]]:
    return [[owner, row] for owner, rows in rows_to_embed(parts, groups) for row in rows.tolist()]


def slots_of(*documents: list[Document]) -> tuple[Keys, list[int]]:
    """Files of four documents and the state of each: BASE, ORPHAN, FOREIGN."""
    parts: list[Keys] = []
    states: list[int] = []
    for state, group in zip((BASE, ORPHAN, FOREIGN), documents, strict=True):
        parts.append(keys(group, first_owner=len(states)))
        states += [state] * -(-len(group) // 4)
    return Keys.concat(parts), states


def require_equal(
    found: NightMatch, embed: list[list[int]], came: Keys, gone: Keys, slots: Keys, states: list[int], rejected: Any, dedupe: bool
) -> None:
    expected = match(came, gone, slots, np.array([*states, 0], np.int8)[slots.owners], rejected, dedupe)
    for name in PLACED:
        assert getattr(found, name).tolist() == places(slots, getattr(expected, name)), name
    for name in COUNTED:
        assert getattr(found, name) == len(getattr(expected, name)), name
    assert embed == places(came, expected.embed)
    adds = [[*slot, *row] for slot, row in zip(unsorted(slots, expected.adds[:, 1]), unsorted(came, expected.adds[:, 0]), strict=True)]
    assert found.adds.tolist() == sorted(adds)
    for contents, of, indices in (
        (found.remembered_contents, came, expected.remembered),
        (found.forgotten_contents, gone, expected.forgotten),
    ):
        assert sorted(contents.tolist()) == sorted(of.contents[indices].tolist())


def unsorted(of: Keys, indices: Any) -> list[list[int]]:
    return [[int(of.owners[index]), int(of.rows[index])] for index in indices]


def places(of: Keys, indices: Any) -> list[list[int]]:
    return sorted(unsorted(of, indices))


def a_night(parts: Partitions) -> NightMatch:
    """Two documents stay, one changes its id, one is new with a twin, one is a reject."""
    old = [Document(1, 1, 0), Document(2, 2, 0), Document(3, 3, 0)]
    new = [Document(3, 3, 0), Document(2, 2, 0), Document(9, 1, 0), Document(5, 5, 0), Document(6, 5, 0), Document(7, 7, 0)]
    changes = night_difference(Source(keys(old)).keys, Source(keys(new)).keys, parts)
    return night_match(changes, Source(keys(old)).keys, hashes([7]), True, parts, groups_of(changes, [4, 2]))


def test_a_night_through_a_store(place: tuple[Store, str]) -> None:
    store, folder = place
    parts = Partitions(3, StoreExchange(store, f"{folder}/_meta/exchange/token"), LocalMapper())
    first = a_night(parts)
    assert first.drops.tolist() == [[0, 0]]
    assert first.adds.tolist() == [[0, 0, 0, 2]]
    assert (first.embed, first.twins, first.remembered) == (1, 1, 1)
    assert embedded(parts, np.zeros(2, np.int32)) == [[0, 3]]
    second = twin_match(first, Source(keys([Document(5, 5, 0)], first_owner=8), [0] * 9).keys, hashes([7]), parts)
    assert second.adds.tolist() == [[8, 0, 1, 0]]
    parts.exchange.remove()
    assert not store.stands(f"{folder}/_meta/exchange") or not store.objects(f"{folder}/_meta/exchange")


def test_a_task_that_is_repeated_replaces_what_it_wrote(place: tuple[Store, str]) -> None:
    exchange = StoreExchange(*place)
    for _ in range(2):
        exchange.write("old", 1, {0: keys([Document(1, 2, 1)])})
        exchange.write("old", 0, {0: keys([Document(3, 4, 0)]), 1: Keys.empty()})
    found = exchange.read("old", 0)
    assert (found.ids.tolist(), found.contents.tolist()) == (hashes([3, 1]).tolist(), hashes([4, 2]).tolist())
    assert (len(exchange.read("old", 1)), len(exchange.read("new", 0))) == (0, 0)
    exchange.remove("old", "new")
    assert not len(exchange.read("old", 0))
    exchange.remove()


def test_twins_without_a_vector_raise() -> None:
    parts = in_memory(2)
    first = a_night(parts)
    with pytest.raises(BulkembedError, match="twins whose content has a vector or is a reject: 0 rows, not 1"):
        twin_match(first, KeySet([], Keys.concat), hashes([]), parts)


def test_twins_of_a_new_reject_are_rejects() -> None:
    parts = in_memory(2)
    first = a_night(parts)
    assert twin_match(first, KeySet([], Keys.concat), hashes([5]), parts).remembered == 1


def test_an_object_with_other_rows_than_it_should_have_raises() -> None:
    source = KeySet([Owner(0, "a.parquet", 2)], lambda place: keys([Document(1, 1, 0)]))
    with pytest.raises(BulkembedError, match=r"documents of a\.parquet: 1 rows, not 2"):
        night_difference(source, KeySet([], source.read), in_memory(1))


@pytest.mark.parametrize("lost", ["old", "came", "gone"])
def test_rows_that_an_exchange_loses_are_missed(lost: str) -> None:
    class Lossy(MemoryExchange):
        def read(self, name: str, bucket: int) -> Keys:
            return super().read(name, bucket).take(slice(1, None) if name == lost else slice(None))  # type: ignore[arg-type]

    with pytest.raises(BulkembedError, match=r"in all buckets: . rows, not ."):
        a_night(Partitions(1, Lossy(), LocalMapper()))


@given(st.lists(st.integers(0, 9)), st.integers(1, 12))
def test_batches_hold_every_owner_once(sizes: list[int], most: int) -> None:
    owners = [Owner(number, "", size) for number, size in enumerate(sizes)]
    batches = list(batches_of(owners, most))
    assert [owner for batch in batches for owner in batch] == owners
    assert all(sum(owner.documents for owner in batch) <= most or len(batch) == 1 for batch in batches)


def test_few_keys_stay_in_this_process() -> None:
    exchange = StoreExchange(Store(), "nowhere")
    asked: list[int] = []

    def mapper(size: int) -> Mapper:
        asked.append(size)
        return LocalMapper()

    work = Workplace(mapper, exchange)
    assert work.partitions(buckets.ROWS_HERE).buckets == 1
    assert work.partitions(0).exchange is not exchange
    assert asked == [], "nobody is asked for a mapper, which would connect Ray"
    many = work.partitions(buckets.ROWS_HERE + 1)
    assert (many.buckets, many.exchange, asked) == (6, exchange, [buckets.KEY_BYTES * (buckets.ROWS_HERE + 1)])


@given(st.integers(buckets.ROWS_HERE + 1, 10**10))
def test_buckets_are_small_for_memory_and_grow_before_they_are_many(documents: int) -> None:
    rows = documents / Workplace(lambda size: LocalMapper(), StoreExchange(Store(), "nowhere")).partitions(documents).buckets
    assert rows <= max(buckets.PARTITION_ROWS, min(documents / buckets.FEW_BUCKETS, buckets.MAX_PARTITION_ROWS))
    assert rows > buckets.MAX_PARTITION_ROWS / 2 or documents / rows <= buckets.FEW_BUCKETS + 1


def test_a_new_mapper_is_asked_for_after_embedding() -> None:
    """Who gives it ends the actors, which hold the cores that tasks would wait for."""
    asked: list[int] = []

    def mapper(size: int) -> Mapper:
        asked.append(size)
        return LocalMapper()

    work = Workplace(mapper, StoreExchange(Store(), "nowhere"))
    few, many = Partitions(1, MemoryExchange(), LocalMapper()), Partitions(3, MemoryExchange(), LocalMapper())
    assert work.after_embedding(few) is few
    assert not asked
    again = work.after_embedding(many)
    assert (again.buckets, again.exchange, len(asked)) == (3, many.exchange, 1)
    assert again.mapper is not many.mapper


@pytest.mark.parametrize("failing", ["difference_of_bucket", "match_of_bucket"])
def test_nothing_stays_in_the_exchange_after_an_error(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    monkeypatch.setattr(buckets, "ROWS_HERE", 30)
    monkeypatch.setattr(buckets, "PARTITION_ROWS", 30)
    monkeypatch.setattr(lookup, "MAX_BYTES_HERE", -1)
    seen: list[Path] = []

    def fail(*_: object) -> None:
        seen.extend((tmp_path / "out/_meta/exchange").rglob("*.arrow"))
        raise BulkembedError("planted")

    monkeypatch.setattr(partitions, failing, fail)
    with pytest.raises(BulkembedError, match="planted"):
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    assert seen
    assert list((tmp_path / "out/_meta/exchange").iterdir()) == []


@given(st.lists(st.integers(0, 9)), st.integers(0, 90), st.integers(1, 12))
def test_groups_of_objects_ascend_and_are_as_many_as_rows_that_came_need(objects: list[int], came: int, most: int) -> None:
    changes = Changes(0, came, 0, came, came, 0, 0, np.empty(0, np.uint32))
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(buckets, "PARTITION_ROWS", most)
        groups = groups_of(changes, objects).tolist()
    assert groups == sorted(groups)
    assert len(groups) == len(objects)
    assert all(0 <= group < max(1, -(-came // most)) for group in groups)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9)), unique=True))
def test_places_are_told_apart_by_owner(found: list[tuple[int, int]]) -> None:
    rows = rows_by_owner(np.array(sorted(found), np.int64).reshape(-1, 2))
    assert [(owner, row) for owner, some in rows.items() for row in some.tolist()] == sorted(found)
