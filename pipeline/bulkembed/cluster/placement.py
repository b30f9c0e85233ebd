"""How many actors and tasks fit the nodes of a cluster, and the resources of each. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bulkembed.config.sections import EngineConfig
from bulkembed.errors import ResourceError

UNITS = 10_000  # Ray counts resources in ten-thousandths
MAX_HELPER_CPUS = 1  # of a prepare or publish task
SPLIT_ACTOR_SHARE = 0.75  # of a CPU host's cores; a prepare and a publish task need the rest
MIN_USED_SHARE = 0.9  # of the cores that actors of the best size could use: fewer and larger actors are worth the rest


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
    """The placement on these nodes, each with as many actors as it holds. Raises ResourceError naming the field that asks too much.

    It reserves room for everything that runs at once. Ray would wait for ever, and say nothing, for a task that fits no node."""
    cpus = [int(node["CPU"]) for node in nodes if node.get("CPU", 0) >= 1]
    if not cpus:
        raise ResourceError("the cluster has no node with a CPU")
    actor_gpus = gpus_of_actor(engine, nodes)
    return fit_gpus(engine, layout, actor_gpus, nodes) if actor_gpus else fit_cpus(engine, layout, cpus)


def gpus_of_actor(engine: EngineConfig, nodes: list[dict[str, float]]) -> float:
    """The GPUs of one actor: as asked, or else what the model is split over where the nodes have GPUs."""
    if engine.num_gpus is not None:
        return engine.num_gpus
    return engine.tensor_parallel_size if engine.kind == "vllm" and any(int(node.get("GPU", 0)) for node in nodes) else 0


def held(amount: float, share: float) -> int:
    """How many shares an amount holds. 1 holds 5 of 0.2, which a division of floats rounds to 4."""
    return math.floor(amount / share + 1 / UNITS)


def in_units(amount: float) -> float:
    """The amount, rounded down to what Ray counts. Three actors of 2/3 CPU would take more than 2 of Ray's rounded ones."""
    return math.floor(amount * UNITS + 1e-6) / UNITS


def actors_of_gpus(gpus: int, actor_gpus: float) -> int:
    """How many actors the GPUs of a node hold. A share is one of a single GPU."""
    return gpus * held(1, actor_gpus) if actor_gpus < 1 else int(gpus // actor_gpus)


def fit_gpus(engine: EngineConfig, layout: str, actor_gpus: float, nodes: list[dict[str, float]]) -> Placement:
    """One actor for every `actor_gpus` GPUs of a node, as far as its cores reach. The other cores prepare and publish."""
    layout = "split" if layout == "auto" else layout
    cpus, gpus = ([int(node.get(kind, 0)) for node in nodes] for kind in ("CPU", "GPU"))
    by_gpus = [actors_of_gpus(count, actor_gpus) for count in gpus]
    # An actor gets one core, or less where that would take more than half of its host's cores. So tasks find a core
    # on every host that has an actor, whichever nodes come and go.
    shares = [cores / (2 * actors) for cores, actors in zip(cpus, by_gpus, strict=True) if actors]
    actor_cpus = in_units(engine.num_cpus or min([1.0, *shares]))
    actors = [min(count, held(cores, actor_cpus)) if actor_cpus else count for cores, count in zip(cpus, by_gpus, strict=True)]
    replicas = engine.replicas or sum(actors)
    if sum(by_gpus) < (engine.replicas or 1):
        raise ResourceError(
            f"engine: {replicas or 1} actors of {actor_gpus:g} GPUs each do not fit the cluster's nodes ({gpus} GPUs): "
            "lower engine.replicas or engine.num_gpus, or grow the cluster"
        )
    spare = [cores - min(replicas, count) * actor_cpus for cores, count in zip(cpus, actors, strict=True)]
    if sum(actors) < (engine.replicas or 1):
        raise ResourceError(
            f"engine.num_cpus: {replicas or 1} actors of {actor_cpus:g} CPUs do not fit the nodes with GPUs, which have "
            f"{[cores for cores, count in zip(cpus, by_gpus, strict=True) if count]} CPUs: lower it, or engine.replicas"
        )
    if layout == "split" and max(spare) <= 0:
        raise ResourceError(f"engine.num_cpus: {replicas} actors of {actor_cpus:g} CPUs leave none of {sum(cpus)} to prepare and publish")
    return Placement(layout, replicas, actor_cpus, in_units(actor_gpus), helper_share(spare), None)


def fit_cpus(engine: EngineConfig, layout: str, cpus: list[int]) -> Placement:
    """One actor a host, or as many as `engine.replicas`. Hosts of different size get as many equal actors as each holds."""
    layout = "fused" if layout == "auto" else layout
    for_actors = 1 if layout == "fused" else SPLIT_ACTOR_SHARE
    share = engine.num_cpus / for_actors if engine.num_cpus else host_share(cpus, engine.replicas)
    actors = [held(cores, share) for cores in cpus]
    hosts = [cores for cores, count in zip(cpus, actors, strict=True) if count]
    replicas = engine.replicas or (len(hosts) if engine.num_cpus else sum(actors))
    if not hosts or sum(actors) < replicas:
        raise ResourceError(
            f"engine.num_cpus: {replicas or 1} actors of {engine.num_cpus:g} CPUs do not fit {len(cpus)} host(s) of {max(cpus)} CPUs "
            f"or fewer: at most {in_units(host_share(cpus, engine.replicas) * for_actors):g} each"
        )
    actor_cpus = in_units(share * for_actors)
    spare = [cores - min(replicas, count) * actor_cpus for cores, count in zip(cpus, actors, strict=True)]
    threads = min(hosts) // math.ceil(replicas / len(hosts)) if engine.num_cpus else int(share)
    return Placement(layout, replicas, actor_cpus, 0, helper_share(spare), max(1, threads))


def host_share(cpus: list[int], replicas: int | None) -> float:
    """The cores that one actor has of its host: the most with which the hosts hold `replicas` actors.

    None: as large as a host, and no larger than leaves few cores without an actor."""
    if replicas:
        shares = {cores / count for cores in cpus for count in range(1, replicas + 1)}
        return max(share for share in shares if sum(held(cores, share) for cores in cpus) >= replicas)
    used = {size: size * sum(held(cores, size) for cores in cpus) for size in set(cpus)}
    return max(size for size, cores in used.items() if cores >= MIN_USED_SHARE * max(used.values()))


def helper_share(spare: list[float]) -> float:
    """The cores of a helper task: two fit on every host that has cores left beside its actors. `spare`: those cores, by host.

    A share of the cluster's sum could be more than any host has left. Then no task would ever start, least of all after a node is lost."""
    return in_units(min([MAX_HELPER_CPUS, *(cores / 2 for cores in spare if cores > 0)])) if max(spare) > 0 else 0
