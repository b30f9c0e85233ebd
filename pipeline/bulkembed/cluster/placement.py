"""Who runs where, decided from the cluster's nodes alone. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bulkembed.config.sections import EngineConfig
from bulkembed.errors import ResourceError

HELPER_CPUS = 1  # of a prepare or publish task


@dataclass(frozen=True)
class Placement:
    """Who runs where."""

    layout: str  # "fused" or "split"
    replicas: int  # embedding actors
    actor_cpus: float
    actor_gpus: float
    helper_cpus: float  # of a prepare or publish task; split only
    engine_cpus: int | None  # threads of a CPU engine; None on GPUs


def fit(engine: EngineConfig, layout: str, nodes: list[dict[str, float]]) -> Placement:
    """The placement on these nodes; pure. Raises ResourceError naming the field that asks too much.

    Everything that runs at once is given its share here: Ray would wait for ever, without a word,
    for a task that no node has room for."""
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    gpus = [int(node.get("GPU", 0)) for node in nodes]
    if not cpus:
        raise ResourceError("the cluster has no node with a CPU")
    wanted = engine.num_gpus
    if wanted is None:
        wanted = engine.tensor_parallel_size if sum(gpus) and engine.kind == "vllm" else 0
    return fit_gpus(engine, layout, wanted, nodes) if wanted else fit_cpus(engine, layout, cpus)


def share_of_half(nodes: list[dict[str, float]], wanted: float) -> list[float]:
    """Cores of an actor on each host that has room for one, where all of the host's actors share half of its cores."""
    return [node.get("CPU", 0) / (2.0 * (node.get("GPU", 0) // wanted)) for node in nodes if node.get("GPU", 0) >= wanted]


def fit_gpus(engine: EngineConfig, layout: str, wanted: float, nodes: list[dict[str, float]]) -> Placement:
    """One actor for every `wanted` GPUs of a node; the other cores prepare and publish."""
    cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
    room = sum(int(count // wanted) for count in gpus)
    replicas = engine.replicas or room
    if not room or replicas > room:
        raise ResourceError(
            f"engine: {replicas or 1} actors of {wanted:g} GPUs each do not fit the cluster's nodes ({gpus} GPUs): "
            "lower engine.replicas or engine.num_gpus, or grow the cluster"
        )
    # An actor has a core to itself where half of its host's cores remain, else its share of that half: whichever
    # nodes come and go, tasks always find a core where an actor does.
    actor_cpus = engine.num_cpus or min(1.0, *share_of_half(nodes, wanted))
    spare = sum(cpus) - replicas * actor_cpus
    if spare <= 0:
        raise ResourceError(f"engine.num_cpus: {replicas} actors of {actor_cpus:g} CPUs leave none of {sum(cpus)} to prepare and publish")
    return Placement("split" if layout == "auto" else layout, replicas, actor_cpus, wanted, min(HELPER_CPUS, spare / 2), None)


def fit_cpus(engine: EngineConfig, layout: str, cpus: list[int]) -> Placement:
    """One actor a host, or as many as asked for, sharing the cores evenly."""
    layout = "fused" if layout == "auto" else layout
    host = min(cpus)  # an actor must fit the smallest host that gets one
    replicas = engine.replicas or len(cpus)
    actors_per_host = math.ceil(replicas / len(cpus))
    # Split needs room for a prepare and a publish task beside the actors.
    share = (host if layout == "fused" else host * 0.75) / actors_per_host
    asked = engine.num_cpus or share
    if asked > share:
        raise ResourceError(
            f"engine.num_cpus: {replicas} actors of {asked:g} CPUs do not fit {len(cpus)} host(s) of {host} CPUs: at most {share:g} each"
        )
    spare = sum(cpus) - replicas * asked
    return Placement(layout, replicas, asked, 0, min(HELPER_CPUS, spare / 2), max(1, host // actors_per_host))
