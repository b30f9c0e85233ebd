"""The pool of embedding actors without Ray: it starts as many as asked, replaces lost ones, and never counts a slot twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cluster.actor_pool import MAX_LOST_STARTS, ActorPool
from bulkembed.errors import BulkembedError, EngineError, GateError, ModelError
from bulkembed.records import LoadedFiles

FILES = LoadedFiles("host-a", (("model.safetensors", "11"),))


class FakeActors:
    """Actors are numbers; the reference of an actor's load result is its number as text."""

    def __init__(self) -> None:
        self.started = 0
        self.killed: list[int] = []
        self.results: dict[str, LoadedFiles | BulkembedError] = {}

    def start(self) -> tuple[int, str]:
        self.started += 1
        return self.started, str(self.started)

    def load_result(self, reference: str) -> LoadedFiles | BulkembedError:
        return self.results.get(reference, FILES)

    def kill(self, actor: int) -> None:
        self.killed.append(actor)


def loaded_pool(actors: FakeActors, size: int, slots: int) -> ActorPool:
    pool = ActorPool(actors, size, slots, "m")
    for reference in list(pool.loading):
        pool.finish_loading(reference)
    return pool


def test_an_actor_has_slots_once_it_has_loaded() -> None:
    pool = ActorPool(FakeActors(), 2, 3, "m")
    assert (len(pool), pool.free_slots) == (2, {})
    pool.finish_loading("2")
    assert (len(pool), pool.free_slots) == (2, {2: 3})


def test_a_lost_start_is_repeated_and_several_in_a_row_end_the_run() -> None:
    actors = FakeActors()
    pool = ActorPool(actors, 1, 1, "m")
    actors.results = {str(number): EngineError("gone") for number in (1, 2, 4, 5, 6)}
    for reference in ("1", "2", "3"):
        pool.finish_loading(reference)
    assert (pool.free_slots, actors.killed) == ({3: 1}, [1, 2])
    pool.replace(3)  # the starts after it are counted anew
    for reference in ("4", "5"):
        pool.finish_loading(reference)
    with pytest.raises(BulkembedError, match=f"{MAX_LOST_STARTS} embedding actors in a row were lost while loading the model: gone"):
        pool.finish_loading("6")


@pytest.mark.parametrize("error", [GateError("wrong vectors"), BulkembedError("cannot load")])
def test_what_another_start_cannot_mend_ends_the_run_at_once(error: BulkembedError) -> None:
    actors = FakeActors()
    actors.results["1"] = error
    pool = ActorPool(actors, 2, 1, "m")
    with pytest.raises(type(error), match=str(error)):
        pool.finish_loading("1")


def test_hosts_with_different_files_are_refused() -> None:
    actors = FakeActors()
    actors.results["2"] = LoadedFiles("host-b", (("model.safetensors", "22"),))
    with pytest.raises(ModelError, match=r"host-b"):
        loaded_pool(actors, 2, 1)


def test_an_actor_is_replaced_once_and_its_late_slots_are_forgotten() -> None:
    actors = FakeActors()
    pool = loaded_pool(actors, 1, 2)
    pool.occupy(1, 1)
    pool.occupy(1, 1)
    for _ in range(2):  # two shards were in flight in it
        pool.release(1, 1)
        pool.replace(1)
    assert (actors.killed, pool.free_slots, len(pool)) == ([1], {}, 1)
    pool.replace(None)  # a task was lost, no actor
    assert actors.started == 2


def test_a_pool_that_stops_replacing_starts_nothing() -> None:
    actors = FakeActors()
    pool = loaded_pool(actors, 2, 1)
    pool.stop_replacing()
    pool.replace(1)
    pool.start()
    actors.results["3"] = EngineError("gone")
    pool.finish_loading("3")
    assert (actors.started, pool.free_slots) == (3, {2: 1})
    pool.close()
    assert sorted(actors.killed) == [1, 2, 3]


def test_the_actor_with_most_room_comes_first_and_an_idle_one_has_all_slots_free() -> None:
    pool = loaded_pool(FakeActors(), 3, 2)
    pool.occupy(1, 2)
    pool.occupy(2, 1)
    pool.occupy(3, 1)
    assert pool.by_room({2: 500, 3: 100}) == [3, 2, 1]
    assert pool.idle_actor() is None
    pool.release(1, 2)
    assert (pool.idle_actor(), pool.by_room({})[0]) == (1, 1)


@given(st.lists(st.sampled_from(["occupy", "release", "lose", "load"]), max_size=60), st.integers(1, 4), st.integers(1, 3))
def test_free_slots_are_never_negative_nor_more_than_there_are(steps: list[str], size: int, slots: int) -> None:
    pool = ActorPool(FakeActors(), size, slots, "m")
    in_flight: list[int] = []
    for step in steps:
        actors = pool.by_room({})
        if step == "load" and pool.loading:
            pool.finish_loading(next(iter(pool.loading)))
        elif step == "occupy" and actors and pool.free_slots[actors[0]]:
            pool.occupy(actors[0], 1)
            in_flight.append(actors[0])
        elif step == "release" and in_flight:
            pool.release(in_flight.pop(0), 1)
        elif step == "lose" and in_flight:
            pool.replace(in_flight[0])
        assert len(pool) == size
        for actor, free in pool.free_slots.items():
            assert free == slots - in_flight.count(actor)
