"""The embedding actors of a run: starts them, replaces lost ones, and knows which has a free slot.

`ActorPool` decides and counts, and needs no Ray. `RayActors` carries its decisions out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from bulkembed.cluster import worker
from bulkembed.cluster.placement import Placement
from bulkembed.cluster.ray_errors import last_line
from bulkembed.embedding import model_identity
from bulkembed.embedding.environment import public_environment
from bulkembed.errors import BulkembedError, EngineError
from bulkembed.records import LoadedFiles
from bulkembed.runs.job import Job

MAX_LOST_STARTS = 3  # actors in a row that are lost before their model is loaded; then the run ends


class Actors(Protocol):
    """What the pool needs from the system that runs its actors."""

    def start(self) -> tuple[Any, Any]:
        """A new actor, and the reference of the result of its `load_model`."""
        ...

    def load_result(self, reference: Any) -> LoadedFiles | BulkembedError:
        """What a finished `load_model` returned; an EngineError where its process was lost."""
        ...

    def kill(self, actor: Any) -> None: ...


class RayActors:
    """Starts, reads and kills `Worker` actors on Ray."""

    def __init__(self, job: Job, placed: Placement, inherited: Mapping[str, str]) -> None:
        """`inherited`: environment variables that Ray's processes have already."""
        import ray

        self.job = ray.put(job)  # the reference
        missing = dict(public_environment(job.cfg.engine, placed.engine_cpus).items() - inherited.items())
        self.new_actor = ray.remote(
            num_cpus=placed.actor_cpus,
            num_gpus=placed.actor_gpus,
            max_concurrency=job.cfg.ray.shards_in_flight,
            runtime_env={"env_vars": missing} if missing else None,
        )(worker.Worker)

    def start(self) -> tuple[Any, Any]:
        """Where the cluster has no room for the actor yet, Ray starts it when the cluster has grown."""
        actor = self.new_actor.remote()
        return actor, actor.load_model.remote(self.job)

    def load_result(self, reference: Any) -> LoadedFiles | BulkembedError:
        import ray
        from ray.exceptions import RayError

        try:
            result: LoadedFiles | BulkembedError = ray.get(reference)
        except RayError as error:
            return EngineError(last_line(error))
        return result

    def kill(self, actor: Any) -> None:
        import ray

        ray.kill(actor)


class ActorPool:
    """Which actors are loading their model, which have loaded it, and how many free slots each of these has.

    A slot is room for one shard in flight. A lost actor is replaced until `stop_replacing` is called."""

    def __init__(self, actors: Actors, size: int, slots: int, model_name: str) -> None:
        self.actors = actors
        self.slots = slots  # of one actor
        self.model_name = model_name
        self.loading: dict[Any, Any] = {}  # actors, by the reference of their load result
        self.free_slots: dict[Any, int] = {}  # of every loaded actor
        self.first_files: LoadedFiles | None = None  # of the actor that was loaded first
        self.lost_starts = 0  # in a row
        self.replaces_lost = True
        for _ in range(size):
            self.start()

    def __len__(self) -> int:
        return len(self.free_slots) + len(self.loading)

    def start(self) -> None:
        actor, reference = self.actors.start()
        self.loading[reference] = actor

    def finish_loading(self, reference: Any) -> None:
        """Takes the actor into use, or starts another one where its process was lost.

        Raises BulkembedError where no actor can load the model, ModelError where hosts have different files of it."""
        actor = self.loading.pop(reference)
        result = self.actors.load_result(reference)
        if isinstance(result, EngineError):
            self.actors.kill(actor)
            self.retry_start(result)
        elif isinstance(result, BulkembedError):
            raise result
        else:
            self.first_files = first = self.first_files or result
            model_identity.require_same(self.model_name, dict(first.hashes), f"{first.host} has", dict(result.hashes), result.host)
            self.lost_starts = 0
            self.free_slots[actor] = self.slots

    def retry_start(self, reason: EngineError) -> None:
        """One lost start may be the fault of its process. Several in a row are the fault of the configuration."""
        if not self.replaces_lost:
            return
        self.lost_starts += 1
        if self.lost_starts >= MAX_LOST_STARTS:
            raise BulkembedError(f"{MAX_LOST_STARTS} embedding actors in a row were lost while loading the model: {reason}")
        self.start()

    def idle_actor(self) -> Any | None:
        """A loaded actor with no shard in flight."""
        return next((actor for actor, free in self.free_slots.items() if free == self.slots), None)

    def by_room(self, text_bytes: Mapping[Any, int]) -> list[Any]:
        """Loaded actors: most free slots first, and of equals first the one with the least text in flight (`text_bytes`)."""
        return sorted(self.free_slots, key=lambda actor: (-self.free_slots[actor], text_bytes.get(actor, 0)))

    def occupy(self, actor: Any, slots: int) -> None:
        self.free_slots[actor] -= slots

    def release(self, actor: Any, slots: int) -> None:
        """Frees slots of an actor; one that was replaced meanwhile has none."""
        if actor in self.free_slots:
            self.free_slots[actor] += slots

    def replace(self, actor: Any) -> None:
        """Kills the actor and starts another one. Does nothing where the actor is not in use: it was replaced already."""
        if self.free_slots.pop(actor, None) is not None:
            self.actors.kill(actor)
            if self.replaces_lost:
                self.start()

    def stop_replacing(self) -> None:
        """From now on the pool starts no actor."""
        self.replaces_lost = False

    def close(self) -> None:
        for actor in [*self.free_slots, *self.loading.values()]:
            self.actors.kill(actor)
