"""Room for a run on the connected cluster: waits while the cluster grows, and decides who runs where."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from typing import Any, TypeVar

from bulkembed import stopping
from bulkembed.cluster import autoscaler, placement
from bulkembed.cluster.placement import Placement
from bulkembed.config.sections import EngineConfig, RayConfig
from bulkembed.embedding import hardware
from bulkembed.errors import ResourceError

log = logging.getLogger(__name__)

NODE_ID = "ray.io/node-id"  # Ray's label of every node
LOOK_AGAIN_SECONDS = 2.0  # while a cluster grows
JOIN_SECONDS = 10.0  # for the nodes of a cluster that does not grow: the run may have been started together with them
SIGN_SECONDS = 20.0  # until an autoscaler begins to add nodes for what it was asked. It looks every 5 s

T = TypeVar("T")


def nodes(without: Collection[str] = ()) -> list[dict[str, float]]:
    """The resources of every node that takes work. `without`: ids of nodes that are left out."""
    return [resources for node, resources in resources_by_node().items() if node not in without]


def working_nodes() -> list[str]:
    """The ids of the nodes that have a core or a GPU, and take work."""
    return [node for node, resources in resources_by_node().items() if resources.get("CPU", 0) or resources.get("GPU", 0)]


def resources_by_node() -> dict[str, dict[str, float]]:
    """The resources of the nodes that are alive and not being drained, by their ids."""
    import ray

    draining = autoscaler.in_cluster(autoscaler.draining_nodes)
    return {node["NodeID"]: node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in draining}


def beside(unfit: Collection[str]) -> dict[str, Any]:
    """Options of a task or an actor that keep it off these nodes."""
    ids = sorted(node for node in unfit if node)
    return {"label_selector": {NODE_ID: f"!in({','.join(ids)})"}} if ids else {}


def place(engine: EngineConfig, cfg: RayConfig) -> Placement:
    """Decides who runs where, waiting for an autoscaling cluster to grow.

    Raises ResourceError where the cluster can never give what was asked for."""
    engine = with_gpus_to_come(engine)
    gpus = placement.gpus_of_actor(engine, nodes())
    bundle = {"CPU": engine.num_cpus or 1, **({"GPU": gpus} if gpus else {})}
    return waited_for(lambda: placement.fit(engine, cfg.layout, nodes()), [bundle] * (engine.replicas or 1), cfg)


def require_cores(cfg: RayConfig) -> None:
    """Waits until a cluster that grows has a core for tasks. Raises ResourceError where none comes: a task would wait for ever."""
    waited_for(require_core, [{"CPU": 1}], cfg)


def require_core() -> None:
    if not any(node.get("CPU", 0) >= 1 for node in nodes()):
        raise ResourceError("the cluster has no node with a CPU, which reading the source and rewriting files need")


def waited_for(attempt: Callable[[], T], bundles: list[dict[str, float]], cfg: RayConfig) -> T:
    """The result of `attempt`, which is repeated while it raises ResourceError and more nodes may come."""
    started = time.monotonic()
    with autoscaler.wishes() as ask:
        while True:
            try:
                return attempt()
            except ResourceError:
                grows = autoscaler.in_cluster(autoscaler.look).can_add_nodes
                if time.monotonic() - started >= patience(cfg, grows):
                    raise
            stopping.stop.check()
            if grows:
                ask(bundles)
            time.sleep(LOOK_AGAIN_SECONDS)


def patience(cfg: RayConfig, grows: bool) -> float:
    """How many seconds to wait for nodes. Nobody joins a Ray that this process has started itself."""
    joined = hardware.cluster_address(cfg.address) is not None
    return cfg.resource_wait_seconds if grows else min(JOIN_SECONDS, cfg.resource_wait_seconds) if joined else 0


def with_gpus_to_come(engine: EngineConfig) -> EngineConfig:
    """The engine with `num_gpus` set where the cluster has no GPU yet and its autoscaler adds one when it is asked.

    The autoscaler tells nobody which nodes it could add. Without this the model would land on the cores of a head that only
    coordinates. A cluster that grows by CPUs alone is asked for as long as it takes to see that nothing comes."""
    if engine.kind != "vllm" or engine.num_gpus is not None or placement.gpus_of_actor(engine, nodes()):
        return engine
    if not autoscaler.in_cluster(autoscaler.look).can_add_nodes:
        return engine
    with_gpus = engine.model_copy(update={"num_gpus": float(engine.tensor_parallel_size)})
    started = time.monotonic()
    with autoscaler.wishes() as ask:
        while time.monotonic() - started < SIGN_SECONDS:
            ask([{"CPU": 1, "GPU": float(engine.tensor_parallel_size)}])
            if placement.gpus_of_actor(engine, nodes()) or autoscaler.in_cluster(autoscaler.look).adds_gpus:
                return with_gpus
            stopping.stop.check()
            time.sleep(LOOK_AGAIN_SECONDS)
    log.warning("bulkembed: the cluster adds no node with a GPU: the model runs on CPUs; engine.num_gpus = 0 spares the %g s", SIGN_SECONDS)
    return engine
