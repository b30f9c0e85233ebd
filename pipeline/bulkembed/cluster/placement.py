"""How many actors and tasks fit the nodes of a cluster, and the resources of each. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bulkembed.config.sections import EngineConfig
from bulkembed.errors import ResourceError

MAX_HELPER_CPUS = 1  # of a prepare or publish task
SPLIT_ACTOR_SHARE = 0.75  # of a CPU host's cores; a prepare and a publish task need the rest


@dataclass(frozen=True)
class Placement:
    """The embedding actors and the helper tasks of a run, and the resources that Ray reserves for each."""

    layout: str  # "fused" or "split"
    replicas: int  # embedding actors
    actor_cpus: float
    actor_gpus: float
    helper_cpus: float  # of a prepare or publish task; split only
    engine_cpus: int | None  # threads of a CPU engine; None on GPUs


def fit(engine: EngineConfig, layout: str, nodes: list[dict[str, float]]) -> Placement:
    """The placement on these nodes. Raises ResourceError naming the field that asks too much.

    It reserves room for everything that runs at once. Ray would wait for ever, and say nothing, for a task that fits no node."""
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    has_gpus = any(int(node.get("GPU", 0)) for node in nodes)
    if not cpus:
        raise ResourceError("the cluster has no node with a CPU")
    actor_gpus = engine.num_gpus
    if actor_gpus is None:
        actor_gpus = engine.tensor_parallel_size if has_gpus and engine.kind == "vllm" else 0
    return fit_gpus(engine, layout, actor_gpus, nodes) if actor_gpus else fit_cpus(engine, layout, cpus)


def half_core_shares(nodes: list[dict[str, float]], actor_gpus: float) -> list[float]:
    """For each host with room for an actor: the cores of one actor, where its actors share half of the host's cores."""
    return [node.get("CPU", 0) / (2.0 * (node.get("GPU", 0) // actor_gpus)) for node in nodes if node.get("GPU", 0) >= actor_gpus]


def fit_gpus(engine: EngineConfig, layout: str, actor_gpus: float, nodes: list[dict[str, float]]) -> Placement:
    """One actor for every `actor_gpus` GPUs of a node. The other cores prepare and publish."""
    cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
    room = sum(int(count // actor_gpus) for count in gpus)
    replicas = engine.replicas or room
    if not room or replicas > room:
        raise ResourceError(
            f"engine: {replicas or 1} actors of {actor_gpus:g} GPUs each do not fit the cluster's nodes ({gpus} GPUs): "
            "lower engine.replicas or engine.num_gpus, or grow the cluster"
        )
    # An actor gets one core, or less where that would take more than half of its host's cores. So tasks find a core
    # on every host that has an actor, whichever nodes come and go.
    actor_cpus = engine.num_cpus or min(1.0, *half_core_shares(nodes, actor_gpus))
    spare = [count - min(replicas, int(held // actor_gpus)) * actor_cpus for count, held in zip(cpus, gpus, strict=True)]
    if max(spare) <= 0:
        raise ResourceError(f"engine.num_cpus: {replicas} actors of {actor_cpus:g} CPUs leave none of {sum(cpus)} to prepare and publish")
    return Placement("split" if layout == "auto" else layout, replicas, actor_cpus, actor_gpus, helper_share(spare), None)


def fit_cpus(engine: EngineConfig, layout: str, cpus: list[int]) -> Placement:
    """One actor a host, or as many as `engine.replicas`. The actors of a host share its cores evenly."""
    layout = "fused" if layout == "auto" else layout
    host = min(cpus)  # an actor must fit the smallest host that gets one
    replicas = engine.replicas or len(cpus)
    actors_per_host = math.ceil(replicas / len(cpus))
    max_cpus = (host if layout == "fused" else host * SPLIT_ACTOR_SHARE) / actors_per_host
    actor_cpus = engine.num_cpus or max_cpus
    if actor_cpus > max_cpus:
        raise ResourceError(
            f"engine.num_cpus: {replicas} actors of {actor_cpus:g} CPUs do not fit {len(cpus)} host(s) of {host} CPUs: "
            f"at most {max_cpus:g} each"
        )
    spare = [host - actors_per_host * actor_cpus]
    return Placement(layout, replicas, actor_cpus, 0, helper_share(spare), max(1, host // actors_per_host))


def helper_share(spare: list[float]) -> float:
    """The cores of a helper task: two fit on every host that has cores left beside its actors. `spare`: those cores, by host.

    A share of the cluster's sum could be more than any host has left. Then no task would ever start, least of all after a node is lost."""
    return min([MAX_HELPER_CPUS, *(cores / 2 for cores in spare if cores > 0)]) if max(spare) > 0 else 0
