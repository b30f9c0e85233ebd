"""The Ray that a run works on: joined or started, and what of it a run takes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bulkembed import stopping
from bulkembed.cluster import joining, own_ray, placement
from bulkembed.cluster.placement import Placement
from bulkembed.config.sections import EngineConfig, RayConfig
from bulkembed.embedding import hardware
from bulkembed.embedding.environment import engine_environment
from bulkembed.errors import BulkembedError, ClusterError, ResourceError
from bulkembed.runs.job import Job

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
}
RAY_LOG_LEVEL = logging.CRITICAL  # what it logs, it also raises: that ends in one line of our own
CLIENT_TIMEOUT_SECONDS = "4"  # of the first of three attempts of Ray Client, each longer: 24 s in all
MAX_REASON = 300  # characters
PLACE_AGAIN_SECONDS = 2.0  # while a cluster grows
OBJECT_STORE_BYTES = 1 << 30  # of a local Ray: a few shards


def connect(cfg: RayConfig, job: Job | None = None) -> Mapping[str, str]:
    """Joins the cluster at `address` (or RAY_ADDRESS), else starts a Ray of this process's own on loopback, which gets the environment
    that the job's actors need. Returns it: what every process of this Ray has already; nothing where it was joined.

    Raises ClusterError where that cannot be."""
    address = hardware.cluster_address(cfg.address)
    if address is None:
        os.environ.update({name: value for name, value in LOCAL_RAY.items() if name not in os.environ})
        own_ray.give_token(os.environ)  # imports ray
    import ray

    stopping.stop.check()
    keep_quiet()
    if ray.is_initialized():
        return {}
    if address is not None:
        os.environ.setdefault("RAY_CLIENT_INITIAL_CONNECTION_TIMEOUT_S", CLIENT_TIMEOUT_SECONDS)
        joining.require_cluster(address)
        with one_line(f"ray.address: {address} could not be joined"), without_command_line():
            ray.init(address=address, logging_level=RAY_LOG_LEVEL, log_to_driver=False)
        return {}
    inherited = environment_here(job) if job else {}
    os.environ.update(inherited)
    with one_line("ray: a Ray of its own could not be started"), own_ray.without_dashboard(), without_command_line():
        # Of this thread, and so of every process of this Ray but the engine's threads (see VLLMEmbedder): a
        # batch task never preempts another as it wakes, and Ray's helpers wake hundreds of times a second.
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        ray.init(
            address="local",
            num_cpus=cfg.num_cpus,
            include_dashboard=False,
            object_store_memory=OBJECT_STORE_BYTES,
            logging_level=RAY_LOG_LEVEL,
            log_to_driver=False,
            _temp_dir=str(own_ray.temporary_folder(os.environ)),
        )
    return inherited


def keep_quiet() -> None:
    """Leaves what Ray has to say about lost processes to our own log: it prints paragraphs in colour on standard output."""
    from ray._private import worker

    logging.getLogger("ray").setLevel(RAY_LOG_LEVEL)
    worker.print_to_stdstream = note


def note(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    log.info("%s", " ".join(data["lines"]))


@contextmanager
def one_line(what: str) -> Iterator[None]:
    """Turns whatever Ray raises, which is of many kinds and often many lines, into a ClusterError."""
    try:
        yield
    except BulkembedError:
        raise
    except Exception as error:
        stopping.stop.check()  # Ray's processes may have had the same signal, and be gone
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ClusterError(f"{what}: {reason[:MAX_REASON]}") from error


@contextmanager
def without_command_line() -> Iterator[None]:
    """Has Ray know this process by a name alone: it shows a driver's command line, with all that `--set` gives, on its dashboard, and its
    server logs it."""
    from ray._private import utils

    before = utils.get_entrypoint_name
    utils.get_entrypoint_name = lambda: "bulkembed"
    try:
        yield
    finally:
        utils.get_entrypoint_name = before


def environment_here(job: Job) -> dict[str, str]:
    """What actors on this host need before they start, `engine.env` apart: that is the actors' alone.

    An actor that lacks nothing takes one of the processes that Ray starts by itself, instead of waiting a second for the agent that
    sets up environments and for a new process. On a GPU host loading takes far longer, and Ray alone knows the GPUs."""
    cfg = job.cfg
    if hardware.has_gpu():
        return {}
    cores = cfg.ray.num_cpus or len(os.sched_getaffinity(0))
    placed = placement.fit(cfg.engine, cfg.ray.layout, [{"CPU": cores}])
    shared = cfg.engine.model_copy(update={"env": {}})
    return engine_environment(shared, placed.engine_cpus)


def disconnect() -> None:
    import ray

    ray.shutdown()


def here() -> tuple[set[int], int]:
    """The cores that this process may use, and the GPUs of the Ray that is connected."""
    import ray

    return os.sched_getaffinity(0), int(ray.cluster_resources().get("GPU", 0))


def place(engine: EngineConfig, cfg: RayConfig) -> Placement:
    """Decides who runs where, waiting for an autoscaling cluster to grow. Raises ResourceError
    where the cluster can never give what was asked for."""
    import ray

    deadline = time.monotonic() + (cfg.resource_wait_seconds if hardware.cluster_address(cfg.address) else 0)
    while True:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        try:
            return placement.fit(engine, cfg.layout, nodes)
        except ResourceError:
            if time.monotonic() >= deadline:
                raise
        stopping.stop.check()
        from ray.autoscaler.sdk import request_resources

        gpus = engine.tensor_parallel_size if engine.num_gpus is None else engine.num_gpus
        request_resources(bundles=[{"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}] * (engine.replicas or 1))
        time.sleep(PLACE_AGAIN_SECONDS)
