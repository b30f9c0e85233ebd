"""Runs on a real Ray cluster of several nodes, which are of different size and of which one lacks the model."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.clusters import Driver, driver, hub_cache, node
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, read_dataset, simulated

pytestmark = pytest.mark.ray
EVERYWHERE, DRIVER_ONLY = "acme/everywhere", "acme/driver-only"  # models of hub caches; the bad node has neither


@dataclass
class Nodes:
    cluster: Any
    driver: Driver
    good_node: dict[str, Any]
    good: Any
    bad: Any


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory, qwen: str) -> Iterator[Nodes]:
    """A head without cores, a node of 2 cores and 3 GPUs, and one of 1 core and 1 GPU whose hub cache is empty."""
    from ray.cluster_utils import Cluster

    folder = tmp_path_factory.mktemp("hubs")
    whole, half, empty = (folder / name for name in ("whole", "half", "empty"))
    environment = hub_cache(whole, qwen, EVERYWHERE, DRIVER_ONLY)
    cluster = Cluster(initialize_head=True, head_node_args=node({}, num_cpus=0))
    try:
        good_node = node(hub_cache(half, qwen, EVERYWHERE), num_cpus=2, num_gpus=3)
        good = cluster.add_node(wait=False, **good_node)
        bad = cluster.add_node(wait=False, **node(hub_cache(empty, qwen), num_cpus=1, num_gpus=1))
        cluster.wait_for_nodes()
        with driver(cluster.address, environment) as connected:
            yield Nodes(cluster, connected, good_node, good, bad)
    finally:
        cluster.shutdown()


def config(nodes: Nodes, source: object, output: object, model: str, **changes: Any) -> dict[str, Any]:
    values = {"ray": {"address": nodes.cluster.address, "resource_wait_seconds": 0}}
    return simulated(source, output, model, **(values | changes)).model_dump(mode="json", exclude_defaults=True)


@pytest.mark.parametrize(
    ("engine", "replicas"),
    [
        ({"num_gpus": 0.2}, 20),
        ({"num_gpus": 1 / 3, "replicas": 12}, 12),
        ({"kind": "vllm", "tensor_parallel_size": 2}, 1),
        ({"num_gpus": 1, "num_cpus": 0.6}, 4),
        ({"num_gpus": 1, "num_cpus": 0.9}, 3),
        ({"replicas": 3}, 3),
        ({}, 3),
    ],
)
def test_ray_holds_every_actor_and_helper_of_a_placement(nodes: Nodes, engine: dict[str, Any], replicas: int) -> None:
    placed = nodes.driver.done("place", engine={"kind": "simulated"} | engine, seconds=0)
    assert (placed["exit_code"], placed["held"], placed["replicas"]) == (0, True, replicas)


@pytest.mark.parametrize("engine", [{"num_cpus": 3}, {"num_gpus": 4}, {"num_gpus": 1, "num_cpus": 2.5}])
def test_what_the_nodes_hold_in_sum_alone_is_refused_in_one_line(nodes: Nodes, engine: dict[str, Any]) -> None:
    refused = nodes.driver.done("place", engine={"kind": "simulated"} | engine, seconds=0)
    assert refused["exit_code"] == 2
    assert refused["error"].startswith("engine")
    assert "\n" not in refused["error"]


@pytest.mark.parametrize("layout", ["fused", "split"])
def test_a_node_without_the_model_is_left_out_and_nothing_is_lost(nodes: Nodes, tmp_path: Path, layout: str, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=2)
    ray = {"address": nodes.cluster.address, "layout": layout}
    done = nodes.driver.done("run", cfg=config(nodes, tmp_path / "in", tmp_path / "out", EVERYWHERE, ray=ray))
    assert done == done | {"exit_code": 0, "lost": {}, "refused": {nodes.bad.node_id: "lacking"}}
    in_one_process(simulated(tmp_path / "in", tmp_path / "alone", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "alone"))


def test_each_host_gets_an_actor_that_leaves_most_of_its_cores_unreserved(nodes: Nodes, tmp_path: Path, qwen: str) -> None:
    """Ray packs small actors on one host unless told otherwise. Each has as many threads as a host has cores."""
    write_corpus(tmp_path / "in", files=2)
    engine = {"kind": "simulated", "tokens_per_second": 1000, "num_cpus": 0.25}
    done = nodes.driver.done("run", cfg=config(nodes, tmp_path / "in", tmp_path / "out", qwen, engine=engine))
    assert done == done | {"exit_code": 0, "lost": {}, "nodes": sorted([nodes.good.node_id, nodes.bad.node_id])}


def test_a_model_that_no_node_has_ends_in_one_line(nodes: Nodes, tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", files=1)
    refused = nodes.driver.done("run", cfg=config(nodes, tmp_path / "in", tmp_path / "out", DRIVER_ONLY))
    assert refused["exit_code"] == 2
    assert refused["error"].startswith(f"no node of the cluster can embed: model: {DRIVER_ONLY}")
    assert not list((tmp_path / "out").glob("data/*/*"))


def test_an_output_that_is_another_place_on_the_nodes_is_refused_before_the_first_shard(nodes: Nodes, tmp_path: Path) -> None:
    write_corpus(tmp_path / "in", files=1)
    refused = nodes.driver.done("run", cfg=config(nodes, tmp_path / "in", "memory://of-each-process/out", EVERYWHERE))
    assert refused["exit_code"] == 2
    assert "cannot read what the driver wrote to memory://of-each-process/out" in refused["error"]
    assert "object store" in refused["error"]


def test_a_node_without_bulkembed_is_left_out(nodes: Nodes, tmp_path: Path) -> None:
    """It fails at once, and would get every task that waits."""
    (tmp_path / "bulkembed").mkdir()
    (tmp_path / "bulkembed" / "__init__.py").write_text("raise ModuleNotFoundError('no bulkembed')")
    write_corpus(tmp_path / "in", files=1)
    empty = nodes.cluster.add_node(**node({"PYTHONPATH": str(tmp_path)}, num_cpus=2))
    done = nodes.driver.done("run", cfg=config(nodes, tmp_path / "in", tmp_path / "out", EVERYWHERE))
    nodes.cluster.remove_node(empty)
    assert done == done | {"exit_code": 0, "lost": {}, "refused": dict.fromkeys([nodes.bad.node_id, empty.node_id], "lacking")}


def test_a_node_that_is_drained_is_left_and_one_that_joins_takes_over(nodes: Nodes, tmp_path: Path, qwen: str) -> None:
    """As after the notice of a spot instance. The last test of the file: the good node is gone afterwards."""
    from ray._raylet import GcsClient  # type: ignore[attr-defined]
    from ray.core.generated.autoscaler_pb2 import DrainNodeReason

    write_corpus(tmp_path / "in")
    engine = {"kind": "simulated", "tokens_per_second": 1000}
    nodes.driver.ask("run", cfg=config(nodes, tmp_path / "in", tmp_path / "out", EVERYWHERE, engine=engine))
    assert nodes.driver.answer() == {"shards": 1}
    deadline = int((time.time() + 600) * 1000)
    spot = DrainNodeReason.Value("DRAIN_NODE_REASON_PREEMPTION")
    assert GcsClient(address=nodes.cluster.address).drain_node(nodes.good.node_id, spot, "a notice", deadline)[0]
    joined = nodes.cluster.add_node(**nodes.good_node)
    done = nodes.driver.result()
    assert done == done | {"exit_code": 0, "lost": {}, "nodes": [joined.node_id]}
    in_one_process(simulated(tmp_path / "in", tmp_path / "alone", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "alone"))
