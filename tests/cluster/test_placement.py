"""Who runs where, on clusters that are written down as the resources of their nodes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cluster import placement
from bulkembed.config.sections import EngineConfig
from bulkembed.errors import ResourceError


def node(cpus: float, gpus: float = 0) -> dict[str, float]:
    return {"CPU": cpus, "GPU": gpus}


@pytest.mark.parametrize(
    ("engine", "layout", "nodes", "expected"),
    [
        ({}, "auto", [node(2)], ("fused", 1, 2.0, 0, 2)),
        ({}, "auto", [node(64), node(64)], ("fused", 2, 64.0, 0, 64)),
        ({}, "split", [node(2)], ("split", 1, 1.5, 0, 2)),
        ({}, "auto", [node(1)], ("fused", 1, 1.0, 0, 1)),
        ({}, "auto", [node(0), node(16, 1)], ("split", 1, 1.0, 1, None)),
        ({}, "auto", [node(192, 8), node(192, 8)], ("split", 16, 1.0, 1, None)),
        ({"tensor_parallel_size": 4}, "auto", [node(192, 8)], ("split", 2, 1.0, 4, None)),
        ({"replicas": 3}, "auto", [node(192, 8)], ("split", 3, 1.0, 1, None)),
        ({"num_gpus": 0.5}, "auto", [node(192, 8), node(2, 1)], ("split", 18, 0.5, 0.5, None)),
        ({"replicas": 1, "num_cpus": 2}, "auto", [node(8, 8)], ("split", 1, 2.0, 1, None)),
        ({"kind": "simulated"}, "auto", [node(16, 1)], ("fused", 1, 16.0, 0, 16)),
        ({"num_gpus": 0.2}, "auto", [node(16, 2)], ("split", 10, 0.8, 0.2, None)),
        ({"num_gpus": 1 / 7}, "auto", [node(14, 1)], ("split", 7, 1.0, 0.1428, None)),
        # Nodes of different size: each gets as many as it holds.
        ({"num_cpus": 4}, "auto", [node(8, 4), node(64, 4), node(96)], ("split", 6, 4.0, 1, None)),
        ({"tensor_parallel_size": 2}, "auto", [node(32, 5), node(8, 3), node(8, 1)], ("split", 3, 1.0, 2, None)),
        ({}, "auto", [node(2), node(64), node(64)], ("fused", 2, 64.0, 0, 64)),
        ({}, "auto", [node(32), node(64)], ("fused", 3, 32.0, 0, 32)),
        ({}, "split", [node(4), node(8)], ("split", 3, 3.0, 0, 4)),
        ({"replicas": 3}, "auto", [node(2), node(64)], ("fused", 3, 21.3333, 0, 21)),
        ({"replicas": 3}, "auto", [node(2)], ("fused", 3, 0.6666, 0, 1)),
        ({"num_cpus": 8}, "auto", [node(4), node(8), node(64)], ("fused", 2, 8.0, 0, 8)),
        ({"num_cpus": 8, "replicas": 9}, "auto", [node(4), node(8), node(64)], ("fused", 9, 8.0, 0, 1)),
    ],
)
def test_placement(engine: dict[str, Any], layout: str, nodes: list[dict[str, float]], expected: tuple[Any, ...]) -> None:
    placed = placement.fit(EngineConfig.model_validate(engine), layout, nodes)
    assert (placed.layout, placed.replicas, placed.actor_cpus, placed.actor_gpus, placed.engine_cpus) == expected


@pytest.mark.parametrize("cpus", [1, 2, 3, 4, 8, 64])
@pytest.mark.parametrize("gpus", [0, 1, 2, 8])
@pytest.mark.parametrize("layout", ["auto", "fused", "split"])
def test_everything_that_runs_at_once_fits_the_host(cpus: int, gpus: int, layout: str) -> None:
    placed = placement.fit(EngineConfig(), layout, [node(cpus, gpus)])
    helpers = 2 * placed.helper_cpus if placed.layout == "split" else 0
    assert placed.replicas * placed.actor_cpus + helpers <= cpus
    assert placed.helper_cpus > 0 or placed.layout == "fused"


@pytest.mark.parametrize(
    ("engine", "nodes", "message"),
    [
        ({"num_gpus": 1}, [node(8)], "do not fit"),
        ({"tensor_parallel_size": 4}, [node(8, 2), node(8, 2)], "4 GPUs each"),
        ({"replicas": 9}, [node(96, 8)], "lower engine.replicas"),
        ({"num_cpus": 4}, [node(2)], "engine.num_cpus: 1 actors of 4 CPUs do not fit 1 host.* at most 2 each"),
        ({"num_cpus": 4}, [node(2), node(3)], "engine.num_cpus"),  # 5 in sum
        ({"num_cpus": 4, "replicas": 3}, [node(6), node(6)], "engine.num_cpus"),
        ({"num_cpus": 64}, [node(96), node(8, 8)], "engine.num_cpus: .* nodes with GPUs"),
        ({"num_cpus": 4, "replicas": 8}, [node(8, 4), node(64, 4)], "engine.num_cpus: .* nodes with GPUs"),
        ({"tensor_parallel_size": 2}, [node(8, 1), node(8, 1)], "2 GPUs each"),
        ({}, [node(0)], "no node with a CPU"),
    ],
)
def test_what_can_never_be_had_is_refused(engine: dict[str, Any], nodes: list[dict[str, float]], message: str) -> None:
    with pytest.raises(ResourceError, match=message):
        placement.fit(EngineConfig.model_validate(engine), "auto", nodes)


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 8)), min_size=1, max_size=5))
def test_on_every_gpu_host_half_of_the_cores_stay_for_tasks(hosts: list[tuple[int, int]]) -> None:
    """Whichever of the others go away."""
    placed = placement.fit(EngineConfig(), "auto", [node(96), *(node(cpus, gpus) for cpus, gpus in hosts)])
    for cpus, gpus in hosts:
        assert gpus * placed.actor_cpus <= cpus / 2


def helpers_fit(cores: float, actors: int, placed: placement.Placement) -> bool:
    left = cores - actors * placed.actor_cpus
    return abs(left) < 1e-3 or 0 < 2 * placed.helper_cpus <= left + 1e-9


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5), st.integers(1, 8) | st.none(), st.sampled_from(["fused", "split"]))
def test_a_helper_task_fits_beside_the_actors_of_any_host(hosts: list[int], replicas: int | None, layout: str) -> None:
    """Also of the smallest one, where all others are lost. In sums, three hosts of one core have 0.75 left, but each only 0.25."""
    placed = placement.fit(EngineConfig(replicas=replicas), layout, [node(cpus) for cpus in hosts])
    assert layout == "fused" or placed.helper_cpus > 0
    per_core = 1 if layout == "fused" else placement.SPLIT_ACTOR_SHARE
    for cpus in hosts:
        assert helpers_fit(cpus, min(placed.replicas, placement.held(cpus * per_core, placed.actor_cpus)), placed) or layout == "fused"


@given(
    st.lists(st.tuples(st.integers(1, 64), st.integers(0, 8)), min_size=1, max_size=5),
    st.sampled_from([None, 1 / 3, 0.2, 0.5, 1.0, 2.0]),
    st.sampled_from([None, 0.3, 1.0, 4.0, 16.0]),
    st.sampled_from([None, 1, 3, 7]),
    st.sampled_from(["fused", "split"]),
)
def test_the_nodes_hold_every_actor_each_on_one_of_them(
    hosts: list[tuple[int, int]], num_gpus: float | None, num_cpus: float | None, replicas: int | None, layout: str
) -> None:
    """Ray places one after the other, counts in ten-thousandths, and takes a share of a GPU from a single one."""
    engine = EngineConfig(num_gpus=num_gpus, num_cpus=num_cpus, replicas=replicas)
    try:
        placed = placement.fit(engine, layout, [node(cpus, gpus) for cpus, gpus in hosts])
    except ResourceError as refused:
        assert "engine" in str(refused)
        return
    cpus, gpus = round(placed.actor_cpus * 10_000), round(placed.actor_gpus * 10_000)
    assert (cpus, gpus) == pytest.approx((placed.actor_cpus * 10_000, placed.actor_gpus * 10_000))
    assert placed.replicas >= (replicas or 1)
    started = 0
    for host_cpus, host_gpus in hosts:
        by_gpus = 10**6 if not gpus else host_gpus * (10_000 // gpus) if gpus < 10_000 else host_gpus * 10_000 // gpus
        started += min(by_gpus, host_cpus * 10_000 // cpus if cpus else 10**6)
    assert started >= placed.replicas


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 8)), min_size=1, max_size=5), st.sampled_from([None, 0.5, 2.0]))
def test_a_helper_task_fits_some_gpu_host_beside_its_actors(hosts: list[tuple[int, int]], num_cpus: float | None) -> None:
    nodes = [node(cpus, gpus) for cpus, gpus in hosts]
    actors = [min(gpus, int(cpus // num_cpus)) if num_cpus else gpus for cpus, gpus in hosts]
    if num_cpus and not any(actors):
        with pytest.raises(ResourceError, match="num_cpus"):
            placement.fit(EngineConfig(num_cpus=num_cpus), "auto", nodes)
    elif num_cpus and all(cpus <= count * num_cpus for (cpus, _), count in zip(hosts, actors, strict=True)):
        with pytest.raises(ResourceError, match=r"num_cpus: .* to prepare and publish"):
            placement.fit(EngineConfig(num_cpus=num_cpus), "auto", nodes)
    else:
        placed = placement.fit(EngineConfig(num_cpus=num_cpus), "auto", nodes)
        assert placed.replicas == sum(actors)
        assert all(helpers_fit(cpus, count, placed) for (cpus, _), count in zip(hosts, actors, strict=True))
