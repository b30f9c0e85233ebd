"""The path of `stages` as a Ray Data graph, one shard a block. The only user of ray in the package.

Two layouts of the same verbs:

    split   shards -> prepare (tasks) -> embed (actors, one per GPU) -> publish (tasks)
    fused   shards -> run_shard (actors, one per CPU host), several shards in flight in each

On a GPU host preparing and publishing belong on the idle cores. On a CPU host the engine uses
every core anyway: helper processes would only preempt its threads, so a shard stays in one process.
"""

from __future__ import annotations

import logging
import math
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from pipeline import embedder, model, stages
from pipeline.config import EngineConfig, RayConfig
from pipeline.errors import BulkembedError, ResourceError
from pipeline.records import Failure, Receipt, Shard
from pipeline.stages import Job

T = TypeVar("T")
log = logging.getLogger(__name__)

# Of a local Ray. Workers are niced by default, so that every helper process preempts the engine;
# the rest are reporters that wake up all the time on behalf of a dashboard that is not there.
LOCAL_RAY = {
    # Off: every server of this Ray binds to loopback alone. (The name is historical: it works on Linux.)
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",
    "RAY_enable_metrics_collection": "0",
    "RAY_task_events_report_interval_ms": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    # Says at every start, as an error, that an actor's arguments live in the object store (ray issue 53727).
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
RAY_LOG_LEVEL = logging.CRITICAL  # what it logs, it also raises: that ends in one line of our own
OBJECT_STORE_BYTES = 1 << 30  # of a local Ray: a few shards
HELPER_CPUS = 1  # of a prepare or publish task


@dataclass(frozen=True)
class Placement:
    """Who runs where."""

    layout: str  # "fused" or "split"
    replicas: int  # embedding actors
    actor_cpus: float
    actor_gpus: int
    helper_cpus: float  # of a prepare or publish task; split only
    engine_cpus: int | None  # threads of a CPU engine; None on GPUs


def run(shards: list[Shard], job: Job) -> Iterator[Receipt | Failure]:
    """Embeds the shards; yields an outcome for each as it is published. Ray must be connected.

    Raises BulkembedError where Ray gives the run up: an actor that cannot load its model, say."""
    from ray.exceptions import RayError

    placement = place(job.cfg.engine, job.cfg.ray)
    log.info("%s", placement)
    try:
        for row in graph(shards, job, placement).iter_rows():
            yield row["item"]
    except RayError as error:
        lines = [line for line in str(error).splitlines() if line.strip()]
        raise BulkembedError(f"Ray gave the run up: {lines[-1].strip()} (BULKEMBED_LOG=debug shows everything)") from error


def graph(shards: list[Shard], job: Job, placement: Placement) -> Any:
    """The Ray Data graph, not started yet."""
    import ray.data
    from ray.data import ActorPoolStrategy, DataContext

    # The progress is shown by the caller.
    logging.getLogger("ray.data").setLevel(RAY_LOG_LEVEL)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # One shard is one block: never cut it, never join two.
    context.target_max_block_size = None
    context.target_min_block_size = 0

    actors: dict[str, Any] = {
        "fn_constructor_args": [job],
        "compute": ActorPoolStrategy(
            min_size=min(placement.replicas, len(shards)),
            max_size=min(max(placement.replicas, job.cfg.engine.max_replicas or 0), len(shards)),
            max_tasks_in_flight_per_actor=job.cfg.ray.shards_in_flight,
            max_concurrent_calls_per_actor=job.cfg.ray.shards_in_flight,
            enable_true_multi_threading=True,
        ),
        "num_cpus": placement.actor_cpus,
        "num_gpus": placement.actor_gpus,
        "runtime_env": {"env_vars": embedder.environment(job.cfg.engine, job.model, job.cfg.max_tokens or 0, placement.engine_cpus)},
    }
    rows = ray.data.from_items([{"item": shard} for shard in shards], override_num_blocks=len(shards))
    if placement.layout == "fused":
        return rows.map(FusedActor, **actors)
    # As many tasks as cores run at once: a tokenizer that took every core would only get in their way.
    helpers: dict[str, Any] = {
        "fn_args": [job],
        "num_cpus": placement.helper_cpus,
        "runtime_env": {"env_vars": {"RAYON_NUM_THREADS": "1"}},
    }
    return rows.map(prepare, **helpers).map(EmbedActor, **actors).map(publish, **helpers)


def attempt(where: Shard, work: Callable[[], T]) -> T | Failure:
    """The result, or what went wrong as a value: one bad shard must not end the run of the others."""
    try:
        return work()
    except BulkembedError as error:
        return Failure(where.id, str(error))
    except Exception:  # noqa: BLE001
        # A fault of the code or the engine: the whole traceback, so that it can be found.
        return Failure(where.id, traceback.format_exc())


def prepare(row: dict[str, Any], job: Job) -> dict[str, Any]:
    shard: Shard = row["item"]
    return {"item": attempt(shard, lambda: stages.prepare(shard, job))}


def publish(row: dict[str, Any], job: Job) -> dict[str, Any]:
    if isinstance(row["item"], Failure):
        return row
    embedded, version = row["item"]
    return {"item": attempt(embedded.shard, lambda: stages.publish(embedded, job, version))}


class LoadedActor:
    """A model on its device."""

    def __init__(self, job: Job) -> None:
        self.job = job
        needs_weights = job.cfg.engine.kind == "vllm"
        path = model.locate(job.model.name, job.model.revision, weights=needs_weights)
        self.embedder = embedder.load(str(path), job.model, job.cfg.max_tokens or 0, job.cfg.engine)


class EmbedActor(LoadedActor):
    """Prepared shards in, embedded shards and the engine's version out."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        prepared = row["item"]
        if isinstance(prepared, Failure):
            return row
        embedded = attempt(prepared.shard, lambda: stages.embed(prepared, self.job, self.embedder))
        return {"item": embedded if isinstance(embedded, Failure) else (embedded, self.embedder.version)}


class FusedActor(LoadedActor):
    """Shards in, receipts out."""

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        shard: Shard = row["item"]
        return {"item": attempt(shard, lambda: stages.run_shard(shard, self.job, self.embedder))}


def connect(cfg: RayConfig) -> None:
    """Joins the cluster at `address` (or RAY_ADDRESS), else starts a Ray of this process's own on loopback."""
    address = cfg.address or os.environ.get("RAY_ADDRESS")
    if address is None:
        os.environ.update({name: value for name, value in LOCAL_RAY.items() if name not in os.environ})
    import ray

    logging.getLogger("ray").setLevel(RAY_LOG_LEVEL)
    if ray.is_initialized():
        return
    if address is not None:
        ray.init(address=address, logging_level=RAY_LOG_LEVEL, log_to_driver=False)
        return
    ray.init(
        address="local",
        num_cpus=cfg.num_cpus,
        include_dashboard=False,
        object_store_memory=OBJECT_STORE_BYTES,
        logging_level=RAY_LOG_LEVEL,
        log_to_driver=False,
    )


def disconnect() -> None:
    import ray

    ray.shutdown()


def place(engine: EngineConfig, cfg: RayConfig) -> Placement:
    """Decides who runs where, waiting for an autoscaling cluster to grow. Raises ResourceError
    where the cluster can never give what was asked for."""
    import ray

    local = cfg.address is None and "RAY_ADDRESS" not in os.environ
    deadline = time.monotonic() + (0 if local else cfg.resource_wait_seconds)
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        try:
            return fit(engine, cfg.layout, nodes)
        except ResourceError:
            if time.monotonic() >= deadline:
                raise
        from ray.autoscaler.sdk import request_resources

        gpus = engine.tensor_parallel_size if engine.num_gpus is None else engine.num_gpus
        request_resources(bundles=[{"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}] * (engine.replicas or 1))
        time.sleep(5)


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
    return fit_gpus(engine, layout, wanted, cpus, gpus) if wanted else fit_cpus(engine, layout, cpus)


def fit_gpus(engine: EngineConfig, layout: str, wanted: int, cpus: list[int], gpus: list[int]) -> Placement:
    """One actor for every `wanted` GPUs of a node; the other cores prepare and publish."""
    room = sum(count // wanted for count in gpus)
    replicas = engine.replicas or room
    if not room or replicas > room:
        raise ResourceError(
            f"engine: {replicas or 1} actors of {wanted} GPUs each do not fit the cluster's nodes ({gpus} GPUs): "
            "lower engine.replicas or engine.num_gpus, or grow the cluster"
        )
    # An actor has a core to itself where half of the cores remain, else its share of that half.
    actor_cpus = engine.num_cpus or min(1.0, sum(cpus) / (2.0 * replicas))
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
