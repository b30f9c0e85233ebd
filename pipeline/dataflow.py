"""The path of `stages` on Ray tasks and actors. The only user of ray in the package.

Two layouts of the same verbs:

    split   prepare (task) -> embed (an actor on its GPUs) -> publish (task)
    fused   run_shard (an actor, one per CPU host), several shards in flight in each

On a GPU host preparing and publishing belong on the idle cores. On a CPU host the engine uses
every core anyway: helper processes would only preempt its threads, so a shard stays in one process.

The driver keeps a bounded number of shards in flight and hands each to the actor with the fewest.
It never sees their data: what one process makes goes to the next by reference.
"""

from __future__ import annotations

import logging
import os
import time
from collections import Counter, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from pipeline import embedder, placement, worker
from pipeline.config import EngineConfig, RayConfig
from pipeline.errors import BulkembedError, ResourceError
from pipeline.placement import Placement
from pipeline.records import Failure, Receipt, Shard
from pipeline.stages import Job

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
ATTEMPTS = 5  # of a shard whose process is lost; what the shard itself does wrong is final at once
HELPER_ENVIRONMENT = {"RAYON_NUM_THREADS": "1"}  # as many tasks as cores run at once: one core each
STARTS = 3  # of actors in a row that are lost before their model is loaded


@contextmanager
def engine(job: Job, shards: int) -> Iterator[Flow]:
    """Embedding actors for at most `shards` shards. Ray must be connected.

    Raises BulkembedError where no actor can load the model, GateError where its vectors are wrong."""
    placed = place(job.cfg.engine, job.cfg.ray)
    log.info("%s", placed)
    flow = Flow(job, placed, shards)
    try:
        yield flow
    finally:
        flow.close()


@dataclass(frozen=True)
class Flight:
    """A shard's call that is under way."""

    shard: Shard
    stage: Literal["prepare", "embed", "publish"]
    actor: Any = None  # that embeds it
    embedded: Any = None  # publish: the reference of what is published


class Flow:
    """The driver's side of a run: which shard is where."""

    def __init__(self, job: Job, placed: Placement, shards: int) -> None:
        import ray

        self.ray = ray
        self.job = ray.put(job)
        self.layout = placed.layout
        self.whole: str | None = None  # the actor's method that takes a shard whole; None: prepare, embed, publish
        self.slots = job.cfg.ray.shards_in_flight
        helper: dict[str, Any] = {"num_cpus": placed.helper_cpus, "runtime_env": {"env_vars": HELPER_ENVIRONMENT}}
        self.prepare = ray.remote(**helper)(worker.prepare)
        self.publish = ray.remote(**helper)(worker.publish)
        settings = embedder.environment(job.cfg.engine, job.model, job.cfg.max_tokens or 0, placed.engine_cpus)
        self.new_actor = ray.remote(
            num_cpus=placed.actor_cpus,
            num_gpus=placed.actor_gpus,
            max_concurrency=self.slots,
            runtime_env={"env_vars": settings},
        )(worker.Worker)
        self.flights: dict[Any, Flight] = {}  # by the reference of the call's result
        self.prepared: deque[tuple[Shard, Any]] = deque()
        self.loading: dict[Any, Any] = {}  # actors, by the reference of their `load`
        self.free: dict[Any, int] = {}  # slots of every loaded actor
        self.attempts: Counter[str] = Counter()
        self.lost_starts = 0
        for _ in range(min(max(placed.replicas, job.cfg.engine.max_replicas or 0), shards)):
            self.start()

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure]:
        self.whole = "run_shard" if self.layout == "fused" else None
        return self.outcomes(shards, job)

    def sample(self, shards: list[Shard], job: Job) -> Iterator[npt.NDArray[np.float32] | Failure]:
        self.whole = "sample"
        return self.outcomes(shards, job)

    def outcomes(self, shards: list[Shard], job: Job) -> Iterator[Any]:
        self.job = self.ray.put(job)
        waiting = deque(shards)
        left = len(shards)
        while left:
            self.submit(waiting)
            # Not fetched: the data of a shard does not come to the driver.
            done, _ = self.ray.wait([*self.loading, *self.flights], num_returns=1, fetch_local=False)
            if done[0] in self.loading:
                self.loaded(done[0])
                continue
            outcome = self.settle(done[0], waiting)
            if outcome is not None:
                left -= 1
                yield outcome

    def start(self) -> None:
        """A new actor. Where the cluster has no room for it yet, it waits for the cluster to grow."""
        actor = self.new_actor.remote()
        self.loading[actor.load.remote(self.job)] = actor

    def loaded(self, reference: Any) -> None:
        from ray.exceptions import RayError

        actor = self.loading.pop(reference)
        try:
            problem = self.ray.get(reference)
        except RayError as error:
            self.lost_starts += 1
            if self.lost_starts >= STARTS:
                raise BulkembedError(f"{STARTS} embedding actors in a row were lost while loading the model: {last_line(error)}") from error
            self.start()
            return
        if problem is not None:
            raise problem
        self.lost_starts = 0
        self.free[actor] = self.slots

    def submit(self, waiting: deque[Shard]) -> None:
        """Gives every free slot a shard, and prepares as many shards again as there are slots."""
        most = 2 * self.slots * max(1, len(self.free))
        while not self.whole and waiting and len(self.flights) + len(self.prepared) < most:
            shard = waiting.popleft()
            self.flights[self.prepare.remote(shard, self.job)] = Flight(shard, "prepare")
        while (waiting if self.whole else self.prepared) and any(self.free.values()):
            actor = max(self.free, key=lambda each: self.free[each])
            self.free[actor] -= 1
            if self.whole:
                shard = waiting.popleft()
                self.flights[getattr(actor, self.whole).remote(shard, self.job)] = Flight(shard, "publish", actor)
            else:
                shard, prepared = self.prepared.popleft()
                self.flights[actor.embed.remote(prepared, self.job)] = Flight(shard, "embed", actor)

    def settle(self, reference: Any, waiting: deque[Shard]) -> Any:
        """Takes a finished call to its shard's next stage; returns the outcome if it was the last."""
        flight = self.flights.pop(reference)
        if flight.stage == "prepare":
            self.prepared.append((flight.shard, reference))
            return None
        if flight.stage == "embed" or self.whole:
            self.release(flight.actor)
        if flight.stage == "embed":
            published = self.publish.remote(reference, self.job)
            self.flights[published] = Flight(flight.shard, "publish", flight.actor, reference)
            return None
        return self.outcome(reference, flight, waiting)

    def release(self, actor: Any) -> None:
        if actor in self.free:
            self.free[actor] += 1

    def outcome(self, reference: Any, flight: Flight, waiting: deque[Shard]) -> Any:
        """None where a process was lost and the shard goes back to the queue."""
        from ray.exceptions import RayError

        try:
            return self.ray.get(reference)
        except RayError as error:
            self.replace_if_lost(flight, error)
            shard = flight.shard
            self.attempts[shard.id] += 1
            log.info("%s: attempt %d lost: %s", shard.id, self.attempts[shard.id], last_line(error))
            if self.attempts[shard.id] >= ATTEMPTS:
                return Failure(shard.id, f"its process was lost {ATTEMPTS} times: {last_line(error)}")
            waiting.append(shard)
            return None

    def replace_if_lost(self, flight: Flight, error: Exception) -> None:
        from ray.exceptions import RayActorError, RayError

        if flight.embedded is not None:
            try:  # publish fails with an error of its own where its input was never made
                self.ray.get(flight.embedded)
            except RayError as cause:
                error = cause
        if isinstance(error, RayActorError) and self.free.pop(flight.actor, None) is not None:
            self.ray.kill(flight.actor)
            self.start()

    def close(self) -> None:
        """Ends what is under way: its outcome has no reader any more."""
        for actor in [*self.free, *self.loading.values()]:
            self.ray.kill(actor)
        for reference, flight in self.flights.items():
            if flight.actor is None or flight.embedded is not None:  # calls of an actor ended with it
                self.ray.cancel(reference, force=True)


def last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


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
            return placement.fit(engine, cfg.layout, nodes)
        except ResourceError:
            if time.monotonic() >= deadline:
                raise
        from ray.autoscaler.sdk import request_resources

        gpus = engine.tensor_parallel_size if engine.num_gpus is None else engine.num_gpus
        request_resources(bundles=[{"CPU": 1, "GPU": gpus} if gpus else {"CPU": 1}] * (engine.replicas or 1))
        time.sleep(5)
