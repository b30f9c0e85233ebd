"""The path of `stages` on Ray tasks and actors.

Two layouts of the same verbs:

    split   prepare (task) -> embed (an actor on its GPUs) -> publish (task)
    fused   run_shard (an actor, one per CPU host), several shards in flight in each

On a GPU host preparing and publishing belong on the idle cores. On a CPU host the engine uses
every core anyway: helper processes would only preempt its threads, so a shard stays in one process.

The driver keeps a bounded number of shards in flight and hands each to the actor with the least to do.
It never sees their data: what one process makes goes to the next by reference. What becomes of a shard
whose process is lost is for `losses` to say.
"""

from __future__ import annotations

import logging
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

from bulkembed import stopping
from bulkembed.cluster import connect, worker
from bulkembed.cluster.backlog import Backlog
from bulkembed.cluster.placement import Placement
from bulkembed.cluster.recovery import Losses
from bulkembed.embedding import model_files
from bulkembed.embedding.embedder import TokenIds
from bulkembed.embedding.environment import public_environment
from bulkembed.errors import BulkembedError, EngineError
from bulkembed.records import Cause, Failure, LoadedFiles, LostAttempt, Receipt, Sampled, Shard
from bulkembed.runs.job import Job

log = logging.getLogger(__name__)

QUIET_SECONDS = 60
POLL_SECONDS = 1.0  # how late a signal may be noticed
NODE_LOST = re.compile(r"node (has |was |is )?(died|dead|terminated|drained|preempted)", re.IGNORECASE)  # Ray has no field for it
VERDICT_TEXT = {
    "again": "trying again",
    "halve": "trying its halves",
    "reject": "its document goes to the rejects",
    "fail": "giving it up",
}
HELPER_ENVIRONMENT = {"RAYON_NUM_THREADS": "1"}  # as many tasks as cores run at once: one core each
STARTS = 3  # of actors in a row that are lost before their model is loaded


@contextmanager
def engine(job: Job, most: int, inherited: Mapping[str, str] | None = None) -> Iterator[Flow]:
    """At most so many embedding actors. Ray must be connected; `inherited` is what its processes have in their environment.

    Raises BulkembedError where no actor can load the model, GateError where its vectors are wrong."""
    placed = connect.place(job.cfg.engine, job.cfg.ray)
    log.info("%s", placed)
    flow = Flow(job, placed, most, inherited or {})
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
    alone: bool = True  # nothing else is in its process
    result: Any = None  # reference of what the next stage gets; None where this call is the last


class Flow:
    """The driver's side of a run: which shard is where."""

    def __init__(self, job: Job, placed: Placement, most: int, inherited: Mapping[str, str]) -> None:
        import ray

        self.ray = ray
        self.job = ray.put(job)
        self.layout = placed.layout
        self.whole: str | None = None  # the actor's method that takes a shard whole; None: prepare, embed, publish
        self.slots = job.cfg.ray.shards_in_flight
        # No retries of Ray's own: a lost process is judged here, whatever it did.
        helper = {"num_cpus": placed.helper_cpus, "max_retries": 0, "runtime_env": {"env_vars": HELPER_ENVIRONMENT}}
        self.prepare, self.publish, self.give_up = (ray.remote(**helper)(verb) for verb in (worker.prepare, worker.publish, worker.give_up))
        lacking = dict(public_environment(job.cfg.engine, placed.engine_cpus).items() - inherited.items())
        self.new_actor = ray.remote(
            num_cpus=placed.actor_cpus,
            num_gpus=placed.actor_gpus,
            max_concurrency=self.slots,
            runtime_env={"env_vars": lacking} if lacking else None,
        )(worker.Worker)
        self.waiting = Backlog()
        self.ready: deque[tuple[Shard, Any]] = deque()  # for an actor: with the reference of what is prepared, or None
        self.suspects: deque[tuple[Shard, Any]] = deque()  # the same, for an actor of their own
        self.flights: dict[Any, Flight] = {}  # by the reference of the call's result
        self.loading: dict[Any, Any] = {}  # actors, by the reference of their `load`
        self.free: dict[Any, int] = {}  # slots of every loaded actor
        self.losses = Losses()
        self.lost_starts = 0
        self.model_name = job.model.name
        self.first_files: LoadedFiles | None = None  # of the actor that was loaded first
        self.quiet_since = time.monotonic()
        self.stopping = False  # no shard is begun any more
        for _ in range(min(max(placed.replicas, job.cfg.engine.max_replicas or 0), most)):
            self.start()

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        self.whole = "run_shard" if self.layout == "fused" else None
        return self.outcomes(shards, job)

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        self.whole = "sample"
        return self.outcomes(shards, job)

    def rates(self, documents: TokenIds, seconds: float) -> list[float]:
        """Tokens/s of every actor on the same documents, all at once. Raises BulkembedError where one is lost."""
        from ray.exceptions import RayError

        while self.loading:  # one that starts later would have the host to itself
            stopping.stop.check()
            for reference in self.ray.wait(list(self.loading), num_returns=1, timeout=POLL_SECONDS)[0]:
                self.loaded(reference)
        sample = self.ray.put(documents)
        try:
            found: list[float] = self.ray.get([actor.rate.remote(sample, self.job, seconds) for actor in self.free])
        except RayError as error:
            raise BulkembedError(last_line(error)) from error
        return found

    def outcomes(self, shards: list[Shard], job: Job) -> Iterator[Any]:
        self.job = self.ray.put(job)
        self.waiting = Backlog(shards)
        while (self.waiting or self.ready or self.suspects or self.flights) and not self.over():
            if not self.stopping:
                self.submit()
            # Not fetched: the data of a shard does not come to the driver.
            done, _ = self.ray.wait([*self.loading, *self.flights], num_returns=1, timeout=POLL_SECONDS, fetch_local=False)
            self.notice(bool(done))
            for reference in done:
                if reference in self.loading:
                    self.loaded(reference)
                    continue
                outcome = self.settle(reference)
                if outcome is not None:
                    yield outcome

    def notice(self, progress: bool) -> None:
        """Says what is waited for when nothing has happened for a while: a cluster that is too small shows no other sign."""
        now = time.monotonic()
        if progress:
            self.quiet_since = now
        elif now - self.quiet_since >= QUIET_SECONDS:
            stages = Counter(flight.stage for flight in self.flights.values())
            free = {name: amount for name, amount in self.ray.available_resources().items() if name in ("CPU", "GPU")}
            log.warning("nothing finished for %d s: %d actors loading, %s, free: %s", QUIET_SECONDS, len(self.loading), dict(stages), free)
            self.quiet_since = now

    def over(self) -> bool:
        """Whether a run that is to stop may: nothing that is worth waiting for is under way, or its time is up."""
        stop = stopping.stop
        if not stop.signal:
            return False
        worth_waiting = self.whole != "sample" and any(flight.stage != "prepare" for flight in self.flights.values())
        if worth_waiting and not self.stopping:
            log.warning("bulkembed: stopping: shards in flight have %g s to be published; once more to stop at once", stop.grace_seconds)
        self.stopping = True
        return not worth_waiting or time.monotonic() >= stop.deadline

    def start(self) -> None:
        """A new actor. Where the cluster has no room for it yet, it waits for the cluster to grow."""
        actor = self.new_actor.remote()
        self.loading[actor.load.remote(self.job)] = actor

    def loaded(self, reference: Any) -> None:
        from ray.exceptions import RayError

        actor = self.loading.pop(reference)
        try:
            found: LoadedFiles | BulkembedError = self.ray.get(reference)
        except RayError as error:
            found = EngineError(last_line(error))
        if isinstance(found, EngineError):  # of this process, or of what was asked: the next one shows
            self.ray.kill(actor)
            if self.stopping:
                return
            self.lost_starts += 1
            if self.lost_starts >= STARTS:
                raise BulkembedError(f"{STARTS} embedding actors in a row were lost while loading the model: {found}")
            self.start()
            return
        if isinstance(found, BulkembedError):
            raise found
        self.first_files = self.first_files or found
        first = self.first_files
        model_files.require_same(self.model_name, dict(first.hashes), f"{first.host} has", dict(found.hashes), found.host)
        self.lost_starts = 0
        self.free[actor] = self.slots

    def submit(self) -> None:
        """Gives every free slot a shard, and prepares as many shards again as there are slots."""
        most = 2 * self.slots * max(1, len(self.free))
        while self.waiting and len(self.flights) + len(self.ready) + len(self.suspects) < most:
            shard = self.waiting.take(len(self.free) + len(self.loading))
            if self.whole:
                self.line_up(shard, None)
            else:
                problem, prepared = self.prepare.options(num_returns=2).remote(shard, self.job)
                self.flights[problem] = Flight(shard, "prepare", result=prepared)
        while self.suspects and (idle := next((actor for actor, free in self.free.items() if free == self.slots), None)):
            self.hand_over(*self.suspects.popleft(), idle, alone=True)
        # The freest actor is left to run empty while a suspect waits for one.
        while self.ready and (actors := self.freest()[bool(self.suspects) :]) and self.free[actors[0]]:
            self.hand_over(*self.ready.popleft(), actors[0], alone=self.slots == 1)

    def freest(self) -> list[Any]:
        """Loaded actors: those with most free slots first, of these the one with least text under way."""
        text_bytes: Counter[Any] = Counter()
        for flight in self.flights.values():
            text_bytes[flight.actor] += flight.shard.text_bytes
        return sorted(self.free, key=lambda actor: (-self.free[actor], text_bytes[actor]))

    def line_up(self, shard: Shard, prepared: Any) -> None:
        (self.suspects if self.losses.suspect(shard) else self.ready).append((shard, prepared))

    def hand_over(self, shard: Shard, prepared: Any, actor: Any, alone: bool) -> None:
        self.free[actor] -= self.slots if alone else 1
        if self.whole:
            self.flights[getattr(actor, self.whole).remote(shard, self.job)] = Flight(shard, "embed", actor, alone)
        else:
            problem, embedded = actor.embed.options(num_returns=2).remote(prepared, self.job)
            self.flights[problem] = Flight(shard, "embed", actor, alone, embedded)

    def settle(self, reference: Any) -> Any:
        """Takes a finished call to its shard's next stage; returns the outcome if there is one."""
        from ray.exceptions import RayError, RayTaskError

        flight = self.flights.pop(reference)
        if flight.actor in self.free:
            self.free[flight.actor] += self.slots if flight.alone else 1
        try:
            outcome = self.ray.get(reference)
        except RayError as error:
            cause = error.cause if isinstance(error, RayTaskError) else error
            if isinstance(cause, RayError):
                return self.lost(flight, cause_of(cause), last_line(cause))
            return Failure(flight.shard.id, last_line(error))  # of the call itself, such as a node without this package
        if isinstance(outcome, LostAttempt):
            return self.lost(flight, outcome.cause, outcome.reason)
        self.losses.in_a_row = 0
        if outcome is None and flight.stage == "prepare":
            self.line_up(flight.shard, flight.result)
        elif outcome is None:
            self.flights[self.publish.remote(flight.result, self.job)] = Flight(flight.shard, "publish")
        return outcome

    def lost(self, flight: Flight, cause: Cause, reason: str) -> LostAttempt | Failure | Sampled:
        """Decides what becomes of a shard whose process or engine is gone, and replaces its actor."""
        shard = flight.shard
        if self.free.pop(flight.actor, None) is not None:
            self.ray.kill(flight.actor)
            if not self.stopping:
                self.start()
        verdict = self.losses.judge(shard, cause, flight.alone)
        log.warning("%s: lost (%s): %s: %s", shard.id, cause, reason, VERDICT_TEXT[verdict])
        if self.losses.hopeless(len(self.free) + len(self.loading)):
            raise BulkembedError(f"{self.losses.in_a_row} attempts in a row were lost, the last of {shard.id}: {reason}")
        if verdict == "again":
            self.waiting.put_back(shard)
        elif verdict == "halve":
            self.waiting.put_back(*self.losses.halves(shard))
        elif verdict == "reject" and self.whole == "sample":
            return Sampled(shard.rows)  # of which the engine makes no vector; the run itself says so
        elif verdict == "reject":
            self.flights[self.give_up.remote(shard, self.job, reason)] = Flight(shard, "publish")
        else:
            return Failure(shard.id, f"lost again and again: {reason}")
        return LostAttempt(shard.id, reason, cause)

    def close(self) -> None:
        """Ends what is under way: its outcome has no reader any more."""
        for actor in [*self.free, *self.loading.values()]:
            self.ray.kill(actor)
        for reference, flight in self.flights.items():
            if flight.actor is None:  # calls of an actor ended with it
                self.ray.cancel(reference, force=True)


def cause_of(error: Exception) -> Cause:
    """Of a process that Ray says is gone."""
    from ray import exceptions

    if isinstance(error, exceptions.OutOfMemoryError):
        return "memory"
    if isinstance(error, exceptions.RayActorError):
        if "ray.kill" in str(error):  # by `lost`, for another shard's sake
            return "bystander"
        taken = error.preempted or isinstance(error, exceptions.ActorUnavailableError) or NODE_LOST.search(str(error))
        return "node" if taken else "engine"
    return "engine" if isinstance(error, exceptions.WorkerCrashedError) else "node"


def last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    # Ray goes on about how memory might have run out.
    return lines[-1].split(" Some common causes include")[0] if lines else type(error).__name__
