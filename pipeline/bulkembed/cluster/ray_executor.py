"""An executor on Ray: the stages of a shard as tasks and calls of embedding actors.

There are two layouts:

    split   prepare (task) -> embed (actor on its GPUs) -> publish (task)
    fused   run_shard (actor, one per CPU host), several shards in flight in each

A GPU host has idle cores for prepare and publish. On a CPU host the engine uses every core, and helper processes
would preempt its threads. There a shard stays in one process.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from bulkembed import stopping
from bulkembed.cluster import dispatch, room, survey, worker
from bulkembed.cluster.actor_pool import ActorPool
from bulkembed.cluster.dispatch import Dispatch, Tasks, Work
from bulkembed.cluster.placement import Placement
from bulkembed.cluster.ray_actors import RayActors
from bulkembed.cluster.ray_errors import last_line
from bulkembed.cluster.recovery import Recovery
from bulkembed.embedding.embedder import TokenIds
from bulkembed.errors import BulkembedError
from bulkembed.records import Failure, LostAttempt, Receipt, Sampled
from bulkembed.runs.job import Job
from bulkembed.runs.landmarks import Landmarks
from bulkembed.shards import Shard

log = logging.getLogger(__name__)

MIN_WAIT_SECONDS = 60.0  # for a node in place of the last one: somebody may be starting it anew
HELPER_ENVIRONMENT = {"RAYON_NUM_THREADS": "1"}  # one core for each task: as many tasks as cores run at once


@contextmanager
def ray_executor(
    job: Job, max_actors: int, inherited: Mapping[str, str] | None = None, seen: Landmarks | None = None
) -> Iterator[RayExecutor]:
    """An executor whose actors end with the context. Ray must be connected.

    `inherited`: environment variables that Ray's processes have already. `seen`: what every node must see; None on the driver's host.
    Its calls raise BulkembedError where no actor can load the model, GateError where a loaded model makes wrong vectors."""
    unfit = survey.unfit_nodes(job, seen) if seen is not None else []
    placed = room.place(job.cfg.engine, job.cfg.ray)
    log.info("%s", placed)
    executor = RayExecutor(job, placed, max_actors, RayActors(job, placed, inherited or {}, seen), unfit)
    try:
        yield executor
    finally:
        executor.close()


class RayExecutor:
    """The actors and the loss counts of a run, and the work that is under way: the driver's side of an executor on Ray."""

    def __init__(self, job: Job, placed: Placement, max_actors: int, actors: RayActors, unfit: Collection[str]) -> None:
        cfg = job.cfg
        self.layout = placed.layout
        self.tasks = helper_tasks(placed.helper_cpus, actors.seen)
        self.recovery = Recovery()
        self.under_way: Dispatch | None = None
        size = min(max(placed.replicas, cfg.engine.max_replicas or 0), max_actors)
        self.actors = actors
        self.pool = ActorPool(
            self.actors, size, cfg.ray.shards_in_flight, job.model.name, max(MIN_WAIT_SECONDS, cfg.ray.resource_wait_seconds), unfit
        )

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        return self.outcomes(shards, job, dispatch.RUN_FUSED if self.layout == "fused" else dispatch.RUN_SPLIT)

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        return self.outcomes(shards, job, dispatch.SAMPLE)

    def outcomes(self, shards: list[Shard], job: Job, work: Work) -> Iterator[Any]:
        import ray

        self.under_way = Dispatch(shards, ray.put(job), work, self.pool, self.tasks, self.recovery)
        return self.under_way.outcomes()

    def measure_rates(self, documents: TokenIds, seconds: float) -> list[float]:
        """Tokens/s of every actor on the same documents, all at once. Raises BulkembedError where one is lost."""
        import ray
        from ray.exceptions import RayError

        while self.pool.loading:  # an actor that starts later would have the host to itself
            stopping.stop.check()
            for reference in ray.wait(list(self.pool.loading), num_returns=1, timeout=dispatch.POLL_SECONDS)[0]:
                self.pool.finish_loading(reference)
        sample = ray.put(documents)
        try:
            rates: list[float] = ray.get([actor.measure_rate.remote(sample, self.actors.job, seconds) for actor in self.pool.free_slots])
        except RayError as error:
            raise BulkembedError(last_line(error)) from error
        return rates

    def close(self) -> None:
        """Ends the actors and what is under way: nobody reads its outcome any more."""
        self.pool.close()
        if self.under_way is not None:
            self.under_way.close()


def helper_tasks(cpus: float, seen: Landmarks | None) -> Tasks:
    """Tasks on so many cores each, which look for what the driver has `seen`.

    Ray must not retry them: `recovery` decides about every lost process."""
    import ray

    settings = {"num_cpus": cpus, "max_retries": 0, "runtime_env": {"env_vars": HELPER_ENVIRONMENT}}
    prepare, publish, give_up = (ray.remote(**settings)(verb) for verb in (worker.prepare, worker.publish, worker.give_up))
    return Tasks(prepare, publish, give_up, seen)
