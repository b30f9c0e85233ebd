"""The embedding actors of a run: starts them, replaces lost ones, and knows which has a free slot.

`ActorPool` decides and counts, and needs no Ray. `RayActors` carries its decisions out."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from typing import Any, Protocol

from bulkembed.cluster.starts import NodeLost, Starts
from bulkembed.embedding import model_identity
from bulkembed.errors import BulkembedError
from bulkembed.records import LoadedFiles, LostAttempt

log = logging.getLogger(__name__)


class Actors(Protocol):
    """What the pool needs from the system that runs its actors."""

    def start(self, refused: Collection[str]) -> tuple[Any, Any]:
        """A new actor on none of the `refused` nodes, and the reference of the result of its `load_model`."""
        ...

    def load_result(self, reference: Any) -> LoadedFiles | BulkembedError:
        """What a finished `load_model` returned; an EngineError where its process was lost, a NodeLost where its node was."""
        ...

    def node_of(self, actor: Any) -> str:
        """The id of the actor's node; empty where it has none yet."""
        ...

    def have_room(self, refused: Collection[str]) -> bool:
        """Whether there is a node, beside the `refused` ones, that is large enough for an actor."""
        ...

    def kill(self, actor: Any) -> None: ...


class ActorPool:
    """Which actors are loading their model, which have loaded it, and how many free slots each of these has.

    A slot is room for one shard in flight. A lost actor is replaced until `stop_replacing` is called."""

    def __init__(
        self, actors: Actors, size: int, slots: int, model_name: str, max_wait_seconds: float = 900, unfit: Collection[str] = ()
    ) -> None:
        """`max_wait_seconds`: without a node for an actor. `unfit`: nodes that lack what an actor needs."""
        self.max_wait_seconds = max_wait_seconds
        self.actors = actors
        self.slots = slots  # of one actor
        self.model_name = model_name
        self.loading: dict[Any, Any] = {}  # actors, by the reference of their load result
        self.free_slots: dict[Any, int] = {}  # of every loaded actor
        self.first_files: LoadedFiles | None = None  # of the actor that was loaded first
        self.starts = Starts(unfit)
        self.missing = 0  # actors that wait for a node on which they can start
        self.leaving: set[Any] = set()  # loaded actors whose nodes are about to go away: they end what they have
        self.replaces_lost = True
        for _ in range(size):
            self.start()

    def __len__(self) -> int:
        return len(self.free_slots) + len(self.loading)

    def start(self) -> None:
        actor, reference = self.actors.start(self.starts.refused)
        self.loading[reference] = actor

    def finish_loading(self, reference: Any) -> LostAttempt | None:
        """Takes the actor into use. Where it cannot load the model, another one is started, and this start is a loss like any other.

        Raises BulkembedError where no actor can load the model, ModelError where hosts have different files of it."""
        actor = self.loading.pop(reference)
        result = self.actors.load_result(reference)
        node = self.actors.node_of(actor)
        if isinstance(result, BulkembedError):
            self.actors.kill(actor)
            return self.lose_start(node, result)
        self.first_files = first = self.first_files or result
        model_identity.require_same(self.model_name, dict(first.hashes), f"{first.host} has", dict(result.hashes), result.host)
        self.starts.record_success(node)
        self.free_slots[actor] = self.slots
        return None

    def lose_start(self, node: str, reason: BulkembedError) -> LostAttempt:
        """Counts the loss. Raises its reason where no actor is left that may load the model."""
        self.starts.record_loss(node, reason)
        if self.replaces_lost:
            self.missing += 1
            self.start_missing()
            if self.starts.is_over or not (isinstance(reason, NodeLost) or self.is_alive()):
                raise self.starts.final_error(reason)
        log.warning("bulkembed: an embedding actor could not load the model: %s", reason)
        return LostAttempt("an embedding actor", str(reason), "node")

    def start_missing(self) -> None:
        """Starts the actors for which there was no node, once there is one that may load the model."""
        if self.missing and self.replaces_lost and not self.starts.is_in_vain and self.actors.have_room(self.starts.refused):
            for _ in range(self.missing):
                self.start()
            self.missing = 0

    def is_alive(self) -> bool:
        """Whether an actor has loaded the model, or may load it on the nodes that there are."""
        refused = self.starts.refused
        if self.free_slots:
            return True
        nodes = {self.actors.node_of(actor) for actor in self.loading.values()}
        # Another GPU of a node may have what this one lacked.
        may_load = any(node and refused.get(node, "passing") == "passing" for node in nodes)
        return may_load or ("" in nodes and self.actors.have_room(refused))

    def idle_actor(self) -> Any | None:
        """A loaded actor with no shard in flight."""
        return next((actor for actor, free in self.free_slots.items() if free == self.slots and actor not in self.leaving), None)

    def by_room(self, text_bytes: Mapping[Any, int]) -> list[Any]:
        """Loaded actors: most free slots first, and of equals first the one with the least text in flight (`text_bytes`)."""
        staying = [actor for actor in self.free_slots if actor not in self.leaving]
        return sorted(staying, key=lambda actor: (-self.free_slots[actor], text_bytes.get(actor, 0)))

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
            if self.replaces_lost and actor not in self.leaving:
                self.start()

    def leave(self, nodes: Collection[str]) -> None:
        """Gives nothing more to the actors on `nodes`, which are about to go away, and starts others in their place."""
        for actor in [actor for actor in self.free_slots if actor not in self.leaving and self.actors.node_of(actor) in nodes]:
            self.leaving.add(actor)
            if self.replaces_lost:
                self.start()
        for actor in [actor for actor in self.leaving if self.free_slots.get(actor) == self.slots]:
            del self.free_slots[actor]
            self.actors.kill(actor)

    def stop_replacing(self) -> None:
        """From now on the pool starts no actor."""
        self.replaces_lost = False

    def close(self) -> None:
        for actor in [*self.free_slots, *self.loading.values()]:
            self.actors.kill(actor)
