"""Shards on their way through tasks and actors of Ray, during one call of an executor.

`Dispatch` keeps a bounded number of shards in flight and hands each to the actor with the least to do. It never sees
their data: what one process makes goes to the next one by reference. `recovery` decides about a shard whose process
was lost."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from bulkembed import stopping
from bulkembed.cluster import autoscaler, room, survey
from bulkembed.cluster.actor_pool import ActorPool
from bulkembed.cluster.backlog import Backlog
from bulkembed.cluster.ray_errors import cause_of, last_line
from bulkembed.cluster.recovery import Recovery
from bulkembed.errors import BulkembedError
from bulkembed.records import Cause, Failure, LostAttempt, Sampled
from bulkembed.runs import landmarks
from bulkembed.runs.landmarks import Landmarks
from bulkembed.shards import Shard

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between two looks at the nodes of the cluster
QUIET_SECONDS = 60  # without a finished call, after which the log says what is under way
POLL_SECONDS = 1.0  # the longest time until a signal is noticed
VERDICT_TEXT = {
    "again": "trying again",
    "halve": "trying its halves",
    "reject": "its document goes to the rejects",
    "fail": "giving it up",
}


@dataclass(frozen=True)
class Work:
    """What is done with each shard."""

    actor_method: str | None  # takes a shard from reading to its outcome; None: prepare, embed and publish are three calls
    publishes: bool  # a shard in flight is worth waiting for when the run is to stop


RUN_FUSED = Work("run_shard", publishes=True)
RUN_SPLIT = Work(None, publishes=True)
SAMPLE = Work("sample_shard", publishes=False)


@dataclass(frozen=True)
class Tasks:
    """Remote functions that run beside the actors."""

    prepare: Any
    publish: Any
    give_up: Any
    seen: Landmarks | None = None  # what their nodes must see; None on the driver's host


@dataclass(frozen=True)
class Call:
    """A call for a shard that is in flight."""

    shard: Shard
    stage: Literal["prepare", "embed", "publish"]
    actor: Any = None  # the actor that runs it; None for a task
    slots: int = 0  # of the actor that it occupies
    alone: bool = True  # nothing else runs in its process
    result: Any = None  # reference of what the next stage gets; None where this call is the last


class Dispatch:
    """The shards of one call: those that wait, those that are ready for an actor, and those in flight."""

    def __init__(self, shards: list[Shard], job: Any, work: Work, pool: ActorPool, tasks: Tasks, recovery: Recovery) -> None:
        """`job`: the reference of the Job."""
        self.job, self.work, self.pool, self.tasks, self.recovery = job, work, pool, tasks, recovery
        self.waiting = Backlog(shards)
        self.ready: deque[tuple[Shard, Any]] = deque()  # with the reference of what was prepared, or None
        self.suspects: deque[tuple[Shard, Any]] = deque()  # the same, for shards that must run alone
        self.calls: dict[Any, Call] = {}  # by the reference of the call's result
        self.progress_at = self.looked_at = self.had_room_at = time.monotonic()
        self.asked: set[str] = set()  # nodes whose fitness was asked for after a loss
        self.is_stopping = False  # no further shard is handed out

    def outcomes(self) -> Iterator[Any]:
        """An outcome for each shard, and a LostAttempt for each attempt that is repeated. Ends early on a signal."""
        while (self.waiting or self.ready or self.suspects or self.calls) and not self.stop_is_due():
            if time.monotonic() - self.looked_at >= LOOK_SECONDS:
                self.look_at_nodes()
            if not self.is_stopping:
                self.hand_out()
            for reference in self.finished_calls():
                is_load = reference in self.pool.loading
                outcome = self.pool.finish_loading(reference) if is_load else self.settle(reference)
                if outcome is not None:
                    yield outcome

    def look_at_nodes(self) -> None:
        """Leaves nodes that are about to go away. Raises BulkembedError where no node that may load the model has come for too long."""
        self.looked_at = time.monotonic()
        self.pool.leave(autoscaler.in_cluster(autoscaler.draining_nodes))
        self.pool.start_missing()
        if self.pool.is_alive():
            self.had_room_at = self.looked_at
        elif self.looked_at - self.had_room_at >= self.pool.max_wait_seconds:
            raise BulkembedError(
                f"no node that can hold an embedding actor has come for {self.pool.max_wait_seconds:g} s (ray.resource_wait_seconds); "
                "what is published stays; run the same command again to resume"
            )

    def finished_calls(self) -> list[Any]:
        import ray

        # Without fetch_local=False the data of a shard would come to the driver.
        done, _ = ray.wait([*self.pool.loading, *self.calls], num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
        if done:
            self.progress_at = time.monotonic()
        elif time.monotonic() - self.progress_at >= QUIET_SECONDS:
            self.log_quiet()
        return list(done)

    def log_quiet(self) -> None:
        """Says what is under way when nothing has finished for a while. A cluster that is too small shows no other sign."""
        import ray

        stages = Counter(call.stage for call in self.calls.values())
        free = {name: amount for name, amount in ray.available_resources().items() if name in ("CPU", "GPU")}
        loading = len(self.pool.loading)
        log.warning("nothing finished for %d s: %d actors loading, %s, free: %s", QUIET_SECONDS, loading, dict(stages), free)
        self.progress_at = time.monotonic()

    def stop_is_due(self) -> bool:
        """Whether to end now because of a signal: no shard in flight is worth waiting for, or the grace period is over."""
        stop = stopping.stop
        if not stop.signal:
            return False
        worth_waiting = self.work.publishes and any(call.stage != "prepare" for call in self.calls.values())
        if worth_waiting and not self.is_stopping:
            log.warning("bulkembed: stopping: shards in flight have %g s to be published; once more to stop at once", stop.grace_seconds)
        self.is_stopping = True
        self.pool.stop_replacing()
        return not worth_waiting or time.monotonic() >= stop.deadline

    def hand_out(self) -> None:
        """Gives a shard to every free slot, and prepares as many more shards as there are slots."""
        pool = self.pool
        max_under_way = 2 * pool.slots * max(1, len(pool.free_slots))
        while self.waiting and len(self.calls) + len(self.ready) + len(self.suspects) < max_under_way:
            self.begin(self.waiting.take(len(pool)))
        while self.suspects and (actor := pool.idle_actor()):
            self.hand_over(*self.suspects.popleft(), actor, pool.slots)
        # While a suspect waits, the actor with the most room gets no other shard, so that it becomes idle.
        while self.ready and (actors := self.actors_by_room()[bool(self.suspects) :]) and pool.free_slots[actors[0]]:
            self.hand_over(*self.ready.popleft(), actors[0], 1)

    def begin(self, shard: Shard) -> None:
        if self.work.actor_method:
            self.line_up(shard, None)
        else:
            prepare = self.tasks.prepare.options(num_returns=2, **self.beside_lacking())
            problem, prepared = prepare.remote(shard, self.job, self.tasks.seen)
            self.calls[problem] = Call(shard, "prepare", result=prepared)

    def beside_lacking(self) -> dict[str, Any]:
        """Options of a task that keep it off the nodes that lack what it needs."""
        return room.beside(self.pool.starts.lacking)

    def line_up(self, shard: Shard, prepared: Any) -> None:
        (self.suspects if self.recovery.is_suspect(shard) else self.ready).append((shard, prepared))

    def actors_by_room(self) -> list[Any]:
        text_bytes: Counter[Any] = Counter()
        for call in self.calls.values():
            text_bytes[call.actor] += call.shard.text_bytes
        return self.pool.by_room(text_bytes)

    def hand_over(self, shard: Shard, prepared: Any, actor: Any, slots: int) -> None:
        """Hands a shard to an actor, of which it occupies `slots`: all of them where it must run alone."""
        self.pool.occupy(actor, slots)
        alone = slots == self.pool.slots
        if self.work.actor_method:
            outcome = getattr(actor, self.work.actor_method).remote(shard, self.job)
            self.calls[outcome] = Call(shard, "embed", actor, slots, alone)
        else:
            problem, embedded = actor.embed_shard.options(num_returns=2).remote(prepared, self.job)
            self.calls[problem] = Call(shard, "embed", actor, slots, alone, embedded)

    def settle(self, reference: Any) -> Any:
        """Takes the shard of a finished call to its next stage. Returns its outcome, or None where there is none yet."""
        import ray
        from ray.exceptions import RayError, RayTaskError

        call = self.calls.pop(reference)
        self.pool.release(call.actor, call.slots)
        try:
            outcome = ray.get(reference)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RayError):
                self.look_from_new_nodes()
                return self.handle_loss(call, cause_of(cause), last_line(cause))
            return Failure(call.shard.id, last_line(error))  # the call itself failed: a node without this package, for one
        if isinstance(outcome, LostAttempt):
            self.leave_out(outcome.node, outcome.reason)
            return self.handle_loss(call, outcome.cause, outcome.reason)
        self.recovery.record_success()
        if outcome is None and call.stage == "prepare":
            self.line_up(call.shard, call.result)
        elif outcome is None:
            publish = self.tasks.publish.options(**self.beside_lacking())
            self.calls[publish.remote(call.result, self.job, self.tasks.seen)] = Call(call.shard, "publish")
        return outcome

    def look_from_new_nodes(self) -> None:
        """Leaves out nodes that are not fit. Ray does not say where a call was lost: perhaps on a node without bulkembed."""
        if self.tasks.seen is not None:
            new = set(room.working_nodes()) - self.asked
            self.asked |= new
            for node, reason in survey.unfit_among(new, self.job, self.tasks.seen).items():
                self.leave_out(node, reason)

    def leave_out(self, node: str, reason: str) -> None:
        """Gives no more work to a node that lacks what it needs. Raises BulkembedError where it was the last one that takes tasks."""
        if not node or node in self.pool.starts.lacking or self.is_of_changed_source(reason):
            return
        self.pool.starts.refuse(node)
        log.warning("bulkembed: a node is left out: %s", reason)
        if not any(resources.get("CPU", 0) for resources in room.nodes(self.pool.starts.lacking)):
            raise BulkembedError(f"no node of the cluster can read and publish: {reason}")

    def is_of_changed_source(self, reason: str) -> bool:
        """Whether the driver itself sees the source no more as it did. That blames no node: the shards say what has changed."""
        import ray

        seen = self.tasks.seen
        if seen is None or not reason.startswith(landmarks.OF_SOURCE):
            return False
        if seen.sources and not landmarks.source_problem(ray.get(self.job).source_store, seen):
            return False
        self.tasks = replace(self.tasks, seen=replace(seen, sources=()))
        return True

    def handle_loss(self, call: Call, cause: Cause, reason: str) -> LostAttempt | Failure | Sampled:
        """Replaces the actor, and decides about a shard whose process or engine was lost."""
        shard = call.shard
        self.pool.replace(call.actor)
        verdict = self.recovery.judge(shard, cause, call.alone)
        log.warning("%s: lost (%s): %s: %s", shard.id, cause, reason, VERDICT_TEXT[verdict])
        if self.recovery.is_hopeless(len(self.pool)):
            raise BulkembedError(f"{self.recovery.in_a_row} attempts in a row were lost, the last of {shard.id}: {reason}")
        if verdict == "again":
            self.waiting.put_back(shard)
        elif verdict == "halve":
            self.waiting.put_back(*self.recovery.halve(shard))
        elif verdict == "fail":
            return Failure(shard.id, f"lost again and again: {reason}")
        elif self.work.publishes:
            give_up = self.tasks.give_up.options(**self.beside_lacking())
            self.calls[give_up.remote(shard, self.job, self.tasks.seen, reason)] = Call(shard, "publish")
        else:
            return Sampled(shard.rows)  # rows without vectors; the run itself rejects them
        return LostAttempt(shard.id, reason, cause)

    def close(self) -> None:
        """Cancels the tasks in flight. The calls of an actor end with it."""
        import ray

        for reference, call in self.calls.items():
            if call.actor is None:
                ray.cancel(reference, force=True)
