"""Embedding actors on Ray: what `actor_pool` decides, carried out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from bulkembed.cluster import autoscaler, room, worker
from bulkembed.cluster.placement import Placement
from bulkembed.cluster.ray_errors import cause_of, last_line
from bulkembed.cluster.starts import NodeLost
from bulkembed.embedding.environment import public_environment
from bulkembed.errors import BulkembedError, EngineError
from bulkembed.records import LoadedFiles
from bulkembed.runs.job import Job
from bulkembed.runs.landmarks import Landmarks


class RayActors:
    """Starts, reads and kills `Worker` actors on Ray."""

    def __init__(self, job: Job, placed: Placement, inherited: Mapping[str, str], seen: Landmarks | None) -> None:
        """`inherited`: environment variables that Ray's processes have already. `seen`: what every node must see."""
        import ray

        self.job = ray.put(job)  # the reference
        self.placed, self.seen = placed, seen
        missing = dict(public_environment(job.cfg.engine, placed.engine_cpus).items() - inherited.items())
        self.new_actor = ray.remote(
            num_cpus=placed.actor_cpus,
            num_gpus=placed.actor_gpus,
            max_concurrency=job.cfg.ray.shards_in_flight,
            scheduling_strategy="SPREAD",  # actors with fewer cores than a host has would all land on one host otherwise
            runtime_env={"env_vars": missing} if missing else None,
        )(worker.Worker)

    def start(self, refused: Collection[str]) -> tuple[Any, Any]:
        """Where the cluster has no room for the actor yet, Ray starts it when the cluster has grown."""
        actor = self.new_actor.options(**room.beside(refused)).remote()
        return actor, actor.load_model.remote(self.job, self.seen)

    def load_result(self, reference: Any) -> LoadedFiles | BulkembedError:
        import ray
        from ray.exceptions import RayError

        try:
            result: LoadedFiles | BulkembedError = ray.get(reference)
        except RayError as error:
            return (NodeLost if cause_of(error) == "node" else EngineError)(last_line(error))
        return result

    def node_of(self, actor: Any) -> str:
        return autoscaler.in_cluster(autoscaler.node_of, actor._actor_id.hex())

    def have_room(self, refused: Collection[str]) -> bool:
        return any(
            node.get("CPU", 0) >= self.placed.actor_cpus and node.get("GPU", 0) >= self.placed.actor_gpus for node in room.nodes(refused)
        )

    def kill(self, actor: Any) -> None:
        import ray

        ray.kill(actor)
