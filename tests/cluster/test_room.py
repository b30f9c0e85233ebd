"""Where a run finds room on clusters that grow and on those that do not."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from bulkembed.cluster import autoscaler, room
from bulkembed.cluster.autoscaler import Autoscaler
from bulkembed.config.sections import EngineConfig, RayConfig
from bulkembed.errors import ResourceError

JOINED = RayConfig(address="10.0.0.1:6379")
GROWS, STATIC = Autoscaler(frozenset({"head"})), Autoscaler(frozenset({"node_4f"}))
HEAD = {"CPU": 16.0}
GPU_HOST = {"CPU": 16.0, "GPU": 8.0}


class FakeCluster:
    """A cluster whose clock is its own: `sleep` lets it pass. What it can add is there `start_seconds` after it was asked for."""

    def __init__(self, *nodes: dict[str, float], can_add: dict[str, float] | None = None, start_seconds: float = 60) -> None:
        self.there, self.can_add, self.start_seconds = list(nodes), can_add, start_seconds
        self.now = 0.0
        self.asked_at: float | None = None
        self.wishes: list[list[dict[str, float]]] = []

    def request(self, bundles: list[dict[str, float]]) -> None:
        self.wishes.append(bundles)
        if self.asked_at is None and any(self.holds(bundle) for bundle in bundles):
            self.asked_at = self.now

    def holds(self, bundle: dict[str, float]) -> bool:
        return self.can_add is not None and all(self.can_add.get(kind, 0) >= amount for kind, amount in bundle.items())

    def nodes(self) -> list[dict[str, float]]:
        has_come = self.can_add and self.asked_at is not None and self.now - self.asked_at >= self.start_seconds
        return [*self.there, *([self.can_add] if has_come and self.can_add else [])]

    def look(self) -> Autoscaler:
        if self.can_add is None:
            return STATIC
        adding = self.asked_at is not None and self.now - self.asked_at >= 5
        return Autoscaler(GROWS.node_types, adding and "GPU" in self.can_add)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCluster], FakeCluster]:
    def use(fake: FakeCluster) -> FakeCluster:
        monkeypatch.setattr(autoscaler, "look", fake.look)
        monkeypatch.setattr(autoscaler, "request", fake.request)
        monkeypatch.setattr(room, "nodes", fake.nodes)
        monkeypatch.setattr(room, "time", SimpleNamespace(sleep=fake.sleep, monotonic=lambda: fake.now))
        return fake

    return use


Use = Callable[[FakeCluster], FakeCluster]


def test_a_head_with_cores_waits_for_the_gpus_that_its_cluster_adds(cluster: Use) -> None:
    fake = cluster(FakeCluster(HEAD, can_add=GPU_HOST))
    placed = room.place(EngineConfig(), JOINED)
    assert (placed.replicas, placed.actor_gpus, placed.layout) == (8, 1, "split")
    assert 60 <= fake.now < 70
    assert fake.wishes[-1] == [], "what was asked for is withdrawn"


def test_a_head_with_cores_and_gpus_asked_for_waits_for_them(cluster: Use) -> None:
    fake = cluster(FakeCluster(HEAD, can_add=GPU_HOST))
    assert room.place(EngineConfig(num_gpus=4), JOINED).actor_gpus == 4
    assert fake.wishes[0] == [{"CPU": 1, "GPU": 4}]


@pytest.mark.parametrize("head", [[], [HEAD]])
def test_a_cluster_that_grows_by_cpus_does_not_wait_for_a_gpu(cluster: Use, head: list[dict[str, float]]) -> None:
    fake = cluster(FakeCluster(*head, can_add={"CPU": 8.0}))
    assert room.place(EngineConfig(), JOINED).actor_gpus == 0
    assert fake.now <= room.SIGN_SECONDS + (0 if head else 70)
    assert fake.wishes[-1] == []


@pytest.mark.parametrize("engine", [EngineConfig(num_gpus=0), EngineConfig(kind="simulated")])
def test_nobody_asks_for_gpus_that_the_engine_does_not_use(cluster: Use, engine: EngineConfig) -> None:
    fake = cluster(FakeCluster(HEAD, can_add=GPU_HOST))
    assert room.place(engine, JOINED).layout == "fused"
    assert (fake.now, fake.wishes) == (0, [])


def test_the_autoscaler_is_asked_for_the_cores_of_an_actor(cluster: Use) -> None:
    fake = cluster(FakeCluster({"CPU": 2.0}, can_add={"CPU": 32.0}))
    assert room.place(EngineConfig(num_cpus=16, num_gpus=0, replicas=1), JOINED).actor_cpus == 16
    assert fake.wishes[0] == [{"CPU": 16}]


@pytest.mark.parametrize(
    ("cfg", "seconds"), [(JOINED, 10), (RayConfig(address="local"), 0), (JOINED.model_copy(update={"resource_wait_seconds": 3}), 3)]
)
def test_a_cluster_that_does_not_grow_is_given_seconds_and_then_refused(cluster: Use, cfg: RayConfig, seconds: float) -> None:
    fake = cluster(FakeCluster(HEAD, {"CPU": 4.0, "GPU": 1.0}))
    with pytest.raises(ResourceError, match=r"engine\.num_cpus") as raised:
        room.place(EngineConfig(num_cpus=8), cfg)
    assert raised.value.exit_code == 2
    assert seconds <= fake.now <= seconds + room.LOOK_AGAIN_SECONDS
    assert fake.wishes == []


def test_what_no_node_of_a_growing_cluster_can_have_is_refused_after_the_wait(cluster: Use) -> None:
    fake = cluster(FakeCluster({"CPU": 2.0}, can_add={"CPU": 8.0}))
    with pytest.raises(ResourceError, match=r"engine\.num_cpus"):
        room.place(EngineConfig(num_cpus=99, num_gpus=0), JOINED)
    assert 900 <= fake.now <= 905


REPORTS: list[tuple[dict[str, Any], bool, bool]] = [
    ({}, False, False),
    ({"active_nodes": {"node_0f3a": 1}, "pending_launches": {}, "pending_nodes": []}, False, False),
    ({"active_nodes": {"ray.head.default": 1}, "pending_resources": {"CPU": 8}, "pending_launches": {"workers": 1}}, True, False),
    ({"active_nodes": {"ray.head.default": 1}, "pending_resources": {"CPU": 8, "GPU": 8}}, True, True),
    ({"active_nodes": {}, "pending_nodes": [["10.0.0.2", "workers", "setting-up"]], "pending_resources": {"GPU": 1}}, True, True),
]


@pytest.mark.parametrize(("report", "grows", "adds_gpus"), REPORTS)
def test_the_report_of_the_first_autoscaler(report: dict[str, Any], grows: bool, adds_gpus: bool) -> None:
    seen = autoscaler.from_report(report)
    assert (seen.can_add_nodes, seen.adds_gpus) == (grows, adds_gpus)


@pytest.mark.parametrize("is_refused", [True, False])
@pytest.mark.parametrize("pending", [True, False])
def test_the_reply_of_the_second_autoscaler(pending: bool, is_refused: bool) -> None:
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    reply.cluster_resource_state.node_states.add(ray_node_type_name="headgroup")
    if pending:
        reply.autoscaling_state.pending_instance_requests.add(ray_node_type_name="gpu-workers", count=1)
    if is_refused:
        refused = reply.autoscaling_state.infeasible_cluster_resource_constraints.add().resource_requests.add()
        refused.request.resources_bundle["GPU"] = 1
    seen = autoscaler.from_reply(reply)
    assert (seen.can_add_nodes, seen.adds_gpus) == (True, pending and not is_refused)


@pytest.mark.usefixtures("ray_session")
def test_a_ray_of_this_host_alone_does_not_grow_and_has_its_nodes() -> None:
    assert not autoscaler.look().can_add_nodes
    assert [node["CPU"] for node in room.nodes()] == [2]
    room.require_cores(RayConfig())


def test_a_cluster_without_cores_is_said(cluster: Use) -> None:
    cluster(FakeCluster({"memory": 1.0}))
    with pytest.raises(ResourceError, match="no node with a CPU"):
        room.require_cores(RayConfig(address="local"))
