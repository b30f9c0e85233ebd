"""The stages of a shard as they run in processes of a cluster. A fault of one shard comes back as a value.

A process that is lost returns nothing; `dispatch` handles that.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from bulkembed.embedding import loading, preflight, throughput
from bulkembed.embedding.embedder import Embedder, TokenIds, Vectors
from bulkembed.errors import BulkembedError, EngineError, ModelError
from bulkembed.records import Embedded, Failure, LoadedFiles, LostAttempt, Prepared, Receipt, Sampled
from bulkembed.runs import landmarks, stages
from bulkembed.runs.job import Job
from bulkembed.runs.landmarks import Landmarks
from bulkembed.shards import Shard

MAX_RESET_SECONDS = 1.0  # the longest time between two resets of the watchdog's clock while documents are finished

SEEN: set[Landmarks] = set()  # what this process has found as the driver sees it

T = TypeVar("T")
log = logging.getLogger(__name__)


def outcome_of(shard: Shard, job: Job, seen: Landmarks | None, work: Callable[[], T]) -> T | Failure | LostAttempt:
    """The result of `work`, or its error as a value: one bad shard must not end the run of the others."""
    try:
        require_fit(job, seen)
    except BulkembedError as error:
        return LostAttempt(shard.id, str(error), "node", this_node())
    try:
        return work()
    except EngineError as error:
        return LostAttempt(shard.id, str(error), error.cause)
    except ModelError as error:  # of this node: the driver has described the model
        return LostAttempt(shard.id, str(error), "node", this_node())
    except BulkembedError as error:
        return Failure(shard.id, str(error))
    except Exception:  # noqa: BLE001
        # This is a fault of the code. The whole traceback is needed to find it.
        return Failure(shard.id, traceback.format_exc())


def require_fit(job: Job, seen: Landmarks | None) -> None:
    """Raises BulkembedError where this node has another bulkembed, output or source than the driver. It may have joined just now.

    Each process looks once at what it must see."""
    job.package.require_here()
    if seen is not None and seen not in SEEN:
        landmarks.require_seen(job, seen)
        SEEN.add(seen)


def this_node() -> str:
    """The id of this process's node; empty outside of Ray."""
    import ray

    return str(ray.get_runtime_context().get_node_id()) if ray.is_initialized() else ""


def problem_and_result(
    shard: Shard, job: Job, seen: Landmarks | None, work: Callable[[], T]
) -> tuple[Failure | LostAttempt | None, T | None]:
    """Two return values, one of them None: the problem, which the driver reads, and the result, which only the next stage reads."""
    outcome = outcome_of(shard, job, seen, work)
    return (outcome, None) if isinstance(outcome, Failure | LostAttempt) else (None, outcome)


def prepare(shard: Shard, job: Job, seen: Landmarks | None) -> tuple[Failure | LostAttempt | None, Prepared | None]:
    return problem_and_result(shard, job, seen, lambda: stages.prepare(shard, job))


def publish(embedded: Embedded, job: Job, seen: Landmarks | None) -> Receipt | Failure | LostAttempt:
    return outcome_of(embedded.prepared.shard, job, seen, lambda: stages.publish(embedded, job))


def give_up(shard: Shard, job: Job, seen: Landmarks | None, reason: str) -> Receipt | Failure | LostAttempt:
    return outcome_of(shard, job, seen, lambda: stages.give_up(shard, job, reason))


class Watchdog:
    """An embedder that refuses calls after the first failure, and ends the process when its engine hangs.

    The engine hangs when a call is under way and no document has been finished for `seconds`. A hung engine cannot be
    interrupted from Python. Only finished documents count, not calls: a call may hold thousands of documents, and a slow
    engine is not a hung one. The clock (`faulthandler`) runs in C and works while another thread holds Python's lock."""

    def __init__(self, embedder: Embedder, seconds: float) -> None:
        self.embedder = embedder
        # Each reset of the clock starts a thread, so not every document resets it. The clock runs that much longer instead.
        self.reset_seconds = min(MAX_RESET_SECONDS, seconds / 10)
        self.seconds = seconds + self.reset_seconds
        self.version = embedder.version
        self.token_states = embedder.token_states
        self.on_vector = embedder.on_vector = self.document_finished
        self.lock = threading.Lock()
        self.calls_under_way = 0
        self.reset_at = 0.0
        self.failure = ""

    def embed(self, documents: TokenIds) -> Vectors:
        if self.failure:
            raise EngineError(self.failure, "bystander")
        self.count_calls(1)
        try:
            return self.embedder.embed(documents)
        except EngineError as error:
            self.failure = str(error)
            raise
        finally:
            self.count_calls(-1)

    def count_calls(self, change: int) -> None:
        with self.lock:
            self.calls_under_way += change
            self.reset_clock()

    def document_finished(self) -> None:
        if time.monotonic() - self.reset_at >= self.reset_seconds:
            with self.lock:
                self.reset_clock()

    def reset_clock(self) -> None:
        """Starts the clock again, or stops it where no call is under way."""
        self.reset_at = time.monotonic()
        if self.calls_under_way:
            faulthandler.dump_traceback_later(self.seconds, exit=True)
        else:
            faulthandler.cancel_dump_traceback_later()


class Worker:
    """An embedding actor: one model on its device. `load_model` must be its first call."""

    embedder: Embedder

    def __init__(self) -> None:
        self.compute_lock = threading.Lock()

    def load_model(self, job: Job, seen: Landmarks | None) -> LoadedFiles | BulkembedError:
        """The files that were loaded, or the reason why this actor cannot embed. `seen`: what the driver sees; None on its own host."""
        os.environ.update(job.cfg.engine.env)  # set here and not by Ray, which would log the secrets that it may hold
        try:
            require_fit(job, seen)
            loaded, files = loading.load(job.model, job.recipe.vector_key.max_tokens, job.engine)
            preflight.require_checks(job.model, job.recipe, job.tokenizer, loaded)
        except BulkembedError as error:
            return error
        except Exception as error:
            log.debug("", exc_info=error)
            kind = EngineError if loading.may_pass(error) else BulkembedError
            return kind(f"model: {job.model.name} could not be checked: {type(error).__name__}: {error}")
        self.embedder = Watchdog(loaded, job.cfg.engine.stall_seconds)
        return files

    def sample_shard(self, shard: Shard, job: Job) -> Sampled | Failure | LostAttempt:
        return outcome_of(shard, job, None, lambda: stages.sample(shard, job, self.embedder))

    def run_shard(self, shard: Shard, job: Job) -> Receipt | Failure | LostAttempt:
        """All stages of a shard. `compute_lock` keeps the stages that use every core from running twice at once."""
        return outcome_of(shard, job, None, lambda: stages.run_shard(shard, job, self.embedder, self.compute_lock))

    def embed_shard(self, prepared: Prepared, job: Job) -> tuple[Failure | LostAttempt | None, Embedded | None]:
        return problem_and_result(prepared.shard, job, None, lambda: stages.embed(prepared, job, self.embedder))

    def measure_rate(self, documents: TokenIds, job: Job, seconds: float) -> float:
        """Tokens/s of the engine alone, in calls of the size that this job uses."""
        return throughput.measure_rate(documents, job.cfg.engine.call_tokens, self.embedder, seconds)
