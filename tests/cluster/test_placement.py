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
        ({"num_cpus": 4}, [node(2)], "engine.num_cpus"),
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


@given(st.lists(st.integers(1, 64), min_size=1, max_size=5), st.integers(1, 8) | st.none(), st.sampled_from(["fused", "split"]))
def test_a_helper_task_fits_beside_the_actors_of_any_host(hosts: list[int], replicas: int | None, layout: str) -> None:
    """Also of the smallest one, where all others are lost. In sums, three hosts of one core have 0.75 left, but each only 0.25."""
    placed = placement.fit(EngineConfig(replicas=replicas), layout, [node(cpus) for cpus in hosts])
    actors_per_host = -(-placed.replicas // len(hosts))
    assert layout == "fused" or placed.helper_cpus > 0
    for cpus in hosts:
        assert actors_per_host * placed.actor_cpus + 2 * placed.helper_cpus <= cpus + 1e-9


@given(st.lists(st.tuples(st.integers(1, 64), st.integers(1, 8)), min_size=1, max_size=5), st.sampled_from([None, 0.5, 2.0]))
def test_a_helper_task_fits_some_gpu_host_beside_its_actors(hosts: list[tuple[int, int]], num_cpus: float | None) -> None:
    nodes = [node(cpus, gpus) for cpus, gpus in hosts]
    room = [cpus - gpus * (num_cpus or 0) for cpus, gpus in hosts]
    if num_cpus and max(room) <= 0:
        with pytest.raises(ResourceError, match="num_cpus"):
            placement.fit(EngineConfig(num_cpus=num_cpus), "auto", nodes)
        return
    placed = placement.fit(EngineConfig(num_cpus=num_cpus), "auto", nodes)
    for cpus, gpus in hosts:
        left = cpus - gpus * placed.actor_cpus
        assert left <= 0 or 0 < 2 * placed.helper_cpus <= left + 1e-9
