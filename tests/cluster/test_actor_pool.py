"""The pool of embedding actors without Ray: it starts as many as asked, replaces lost ones, and never counts a slot twice."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cluster import autoscaler, dispatch, room, survey
from bulkembed.cluster.actor_pool import ActorPool
from bulkembed.cluster.recovery import Recovery
from bulkembed.cluster.starts import MAX_LOST_NODES, MAX_LOST_STARTS, NodeLost
from bulkembed.errors import BulkembedError, ConfigError, EngineError, GateError, HubError, ModelError
from bulkembed.records import LoadedFiles
from bulkembed.runs.landmarks import Landmarks

FILES = LoadedFiles("host-a", (("model.safetensors", "11"),))


class FakeActors:
    """Actors are numbers; the reference of an actor's load result is its number as text. `nodes`: the actors that each node holds."""

    def __init__(self, **nodes: int) -> None:
        self.nodes = nodes or {"a": 99}
        self.started = 0
        self.on: dict[int, str] = {}
        self.waiting: dict[int, set[str]] = {}  # actors without a node, with the nodes that are refused to them
        self.killed: list[int] = []
        self.results: dict[str, LoadedFiles | BulkembedError] = {}  # by reference, or by node

    def start(self, refused: Collection[str]) -> tuple[int, str]:
        self.started += 1
        self.waiting[self.started] = set(refused)
        self.place()
        return self.started, str(self.started)

    def place(self) -> None:
        """As Ray does: whenever a node has room, an actor that waits gets it."""
        for actor, refused in list(self.waiting.items()):
            for node, places in self.nodes.items():
                held = [other for other, where in self.on.items() if where == node and other not in self.killed]
                if node not in refused and len(held) < places:
                    self.on[actor] = node
                    del self.waiting[actor]
                    break

    def load_result(self, reference: str) -> LoadedFiles | BulkembedError:
        return self.results.get(reference) or self.results.get(self.on[int(reference)], FILES)

    def node_of(self, actor: int) -> str:
        return self.on.get(actor, "")

    def have_room(self, refused: Collection[str]) -> bool:
        return bool(self.nodes.keys() - set(refused))

    def kill(self, actor: int) -> None:
        self.killed.append(actor)
        self.waiting.pop(actor, None)
        self.place()


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


@pytest.mark.parametrize("error", [GateError("wrong vectors"), BulkembedError("cannot load"), ModelError("no folder"), ConfigError("old")])
def test_what_another_start_cannot_mend_ends_the_run_of_one_host_at_once(error: BulkembedError) -> None:
    actors = FakeActors()
    actors.results["1"] = error
    pool = ActorPool(actors, 2, 1, "m")
    with pytest.raises(type(error), match=str(error)) as raised:
        pool.finish_loading("1")
    assert raised.value is error


def load_all(pool: ActorPool, actors: FakeActors) -> list[str]:
    """Finishes every load that is on a node, until none is. Returns the reasons of the losses."""
    losses = []
    while ready := [reference for reference, actor in pool.loading.items() if actors.node_of(actor)]:
        if (lost := pool.finish_loading(ready[0])) is not None:
            losses.append(lost.reason)
    return losses


@pytest.mark.parametrize(
    ("error", "starts"),
    [
        (ModelError("no folder"), 1),
        (ConfigError("old"), 1),
        (BulkembedError("no such layer"), 1),
        (EngineError("no memory"), 3),
        (HubError("silent"), 3),
    ],
)
def test_one_bad_node_of_many_costs_its_actor_alone(error: BulkembedError, starts: int) -> None:
    actors = FakeActors(**{f"n{number}": 1 for number in range(20)})
    actors.results["n0"] = error
    pool = ActorPool(actors, 20, 1, "m")
    assert load_all(pool, actors) == [str(error)] * starts
    assert len(pool.free_slots) == 19
    assert {actors.node_of(actor) for actor in pool.free_slots} == set(actors.nodes) - {"n0"}
    assert len(actors.waiting) == 1, "the twentieth waits for another node"
    actors.nodes["new"] = 1  # a worker comes, or comes back under another id
    actors.place()
    assert load_all(pool, actors) == []
    assert len(pool.free_slots) == 20


def test_an_actor_is_tried_elsewhere_where_its_node_lacks_the_model() -> None:
    actors = FakeActors(**{f"n{number}": 1 for number in range(6)})
    actors.results = {f"n{number}": ModelError("no folder") for number in range(5)}
    pool = ActorPool(actors, 1, 1, "m")
    assert load_all(pool, actors) == ["no folder"] * 5
    assert [actors.node_of(actor) for actor in pool.free_slots] == ["n5"]


@pytest.mark.parametrize("size", [1, 20])
@pytest.mark.parametrize(
    ("error", "most"),
    [(GateError("wrong vectors"), 1), (BulkembedError("no such argument"), 1), (ModelError("no folder"), 20), (EngineError("gone"), 3)],
)
def test_what_is_the_same_everywhere_ends_the_run_after_few_starts(error: BulkembedError, most: int, size: int) -> None:
    """`most`: of starts on one node, where all load at once; else on two, or on all where each takes no time."""
    actors = FakeActors(**{f"n{number}": 1 for number in range(20)})
    actors.results = dict.fromkeys(actors.nodes, error)
    pool = ActorPool(actors, size, 1, "m")
    with pytest.raises(BulkembedError, match=str(error)) as raised:
        load_all(pool, actors)
    assert raised.value.exit_code == (1 if isinstance(error, EngineError) else error.exit_code)
    assert actors.started <= (2 * most if most < 20 else 20) if size == 1 else actors.started <= 100


def test_an_actor_that_cannot_load_later_leaves_the_others_at_work() -> None:
    actors = FakeActors(a=2)
    pool = loaded_pool(actors, 2, 1)
    pool.replace(1)
    actors.results = {str(number): BulkembedError("could not be loaded") for number in range(3, 9)}
    assert load_all(pool, actors) == ["could not be loaded"] * MAX_LOST_STARTS, "the node has loaded the model before"
    assert pool.free_slots == {2: 1}
    pool.free_slots.clear()
    actors.results["9"] = BulkembedError("could not be loaded")
    pool.loading["9"] = 9
    actors.on[9] = "a"
    with pytest.raises(BulkembedError, match="could not be loaded") as raised:
        pool.finish_loading("9")
    assert raised.value.exit_code == 1, "shards are done: the configuration is not wrong"


def test_a_node_that_goes_away_while_it_loads_is_blamed_for_nothing() -> None:
    actors = FakeActors(a=1)
    actors.results = {str(number): NodeLost("node died") for number in range(1, 3 * MAX_LOST_NODES)}
    pool = ActorPool(actors, 1, 1, "m")
    for number in range(1, MAX_LOST_NODES):
        assert pool.finish_loading(str(number)) is not None
    assert not pool.starts.refused
    with pytest.raises(BulkembedError, match=f"{MAX_LOST_NODES} embedding actors in a row"):
        pool.finish_loading(str(MAX_LOST_NODES))


def test_an_actor_that_finds_its_gpu_held_leaves_the_other_gpu_of_its_host_alone() -> None:
    actors = FakeActors(a=2)
    actors.results = {str(number): EngineError("no memory") for number in (1, 3, 4)}
    pool = ActorPool(actors, 2, 1, "m")
    for reference in ("1", "3", "4"):
        assert pool.finish_loading(reference) is not None
    assert pool.finish_loading("2") is None
    assert pool.free_slots == {2: 1}


def test_a_lost_node_without_another_one_is_waited_for() -> None:
    actors = FakeActors(a=1)
    actors.results["1"] = NodeLost("node died")
    pool = ActorPool(actors, 1, 1, "m")
    actors.nodes.clear()
    assert pool.finish_loading("1") is not None
    assert not pool.is_alive()
    actors.nodes["b"] = 1
    pool.start_missing()
    assert load_all(pool, actors) == []
    assert (len(pool.free_slots), pool.missing) == (1, 0)


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


def test_a_node_that_is_about_to_go_away_gets_no_new_shard_and_ends_what_it_has() -> None:
    actors = FakeActors(a=1, b=1)
    pool = loaded_pool(actors, 2, 2)
    pool.occupy(1, 1)
    actors.nodes["c"] = 1
    for _ in range(2):
        pool.leave({"a"})
        assert pool.by_room({}) == [2]
    assert (actors.started, actors.killed) == (3, [])
    assert pool.finish_loading("3") is None
    assert pool.by_room({}) == [2, 3]
    assert pool.idle_actor() != 1
    pool.release(1, 1)
    pool.leave({"a"})
    assert (actors.killed, set(pool.free_slots)) == ([1], {2, 3})
    pool.replace(1)  # its call may have been lost in the same moment
    assert actors.started == 3


def test_an_actor_that_is_lost_while_it_leaves_is_replaced_once() -> None:
    actors = FakeActors(a=1, b=1)
    pool = loaded_pool(actors, 1, 1)
    pool.occupy(1, 1)
    pool.leave({"a"})
    pool.release(1, 1)
    pool.replace(1)
    assert (actors.started, len(pool)) == (2, 1)


def test_a_pool_that_stops_replaces_nothing_on_nodes_that_go_away() -> None:
    actors = FakeActors(a=1, b=1)
    pool = loaded_pool(actors, 1, 1)
    pool.stop_replacing()
    pool.leave({"a"})
    assert (actors.started, len(pool)) == (1, 0)


def test_a_run_waits_for_a_node_for_so_long_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(dispatch, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(autoscaler, "draining_nodes", set[str])
    actors = FakeActors(a=1)
    pool = loaded_pool(actors, 1, 1)
    pool.max_wait_seconds = 900
    under_way = dispatch.Dispatch([], None, dispatch.SAMPLE, pool, dispatch.Tasks(None, None, None), Recovery())
    actors.nodes.clear()
    pool.replace(1)
    for clock[0] in (100.0, 899.0):
        under_way.look_at_nodes()
    actors.nodes["b"] = 1  # a worker comes back
    clock[0] = 950.0
    under_way.look_at_nodes()
    actors.nodes.clear()
    clock[0] = 1849.0
    under_way.look_at_nodes()
    clock[0] = 1851.0
    with pytest.raises(BulkembedError, match=r"no node that can hold an embedding actor has come for 900 s .*resource_wait_seconds"):
        under_way.look_at_nodes()


def test_nodes_that_joined_are_asked_once_where_a_call_is_lost_and_nobody_knows_where(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[set[str]] = []
    there = {"a": {"CPU": 2.0}, "b": {"CPU": 2.0}}

    def unfit_among(nodes: set[str], *_: object) -> dict[str, str]:
        asked.append(nodes)
        return {"b": "cannot run bulkembed"} if "b" in nodes else {}

    monkeypatch.setattr(room, "resources_by_node", lambda: there)
    monkeypatch.setattr(survey, "unfit_among", unfit_among)
    pool, tasks = loaded_pool(FakeActors(a=1), 1, 1), dispatch.Tasks(None, None, None, Landmarks("s3://b/out", "token"))
    under_way = dispatch.Dispatch([], None, dispatch.RUN_SPLIT, pool, tasks, Recovery())
    for _ in range(2):
        under_way.look_from_new_nodes()
    assert (asked, pool.starts.lacking) == ([{"a", "b"}, set()], ["b"])
    assert "!in(b)" in str(under_way.beside_lacking())
    with pytest.raises(BulkembedError, match="no node of the cluster can read and publish: another output"):
        under_way.leave_out("a", "another output")


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
