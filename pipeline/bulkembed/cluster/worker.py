"""The verbs as they run in processes of a cluster: what goes wrong with a shard comes back as a value.

A lost process is another matter: `dataflow` sees to it.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import TypeVar

from bulkembed import __version__
from bulkembed.embedding import loading, preflight, throughput
from bulkembed.embedding.embedder import Embedder, TokenIds, Vectors
from bulkembed.errors import BulkembedError, ConfigError, EngineError
from bulkembed.records import Embedded, Failure, LoadedFiles, LostAttempt, Prepared, Receipt, Sampled, Shard
from bulkembed.runs import stages
from bulkembed.runs.job import Job

REST_SECONDS = 1.0  # between two settings of the clock

T = TypeVar("T")
log = logging.getLogger(__name__)


def attempt(where: Shard, job: Job, work: Callable[[], T]) -> T | Failure | LostAttempt:
    """The result, or what went wrong as a value: one bad shard must not end the run of the others."""
    try:
        require_version(job)
        return work()
    except EngineError as error:
        return LostAttempt(where.id, str(error), error.cause)
    except BulkembedError as error:
        return Failure(where.id, str(error))
    except Exception:  # noqa: BLE001
        # A fault of the code: the whole traceback, so that it can be found.
        return Failure(where.id, traceback.format_exc())


def require_version(job: Job) -> None:
    """Raises ConfigError where this node would make something else of a shard than the driver has planned."""
    planned = job.provenance["bulkembed"]
    if planned != __version__:
        raise ConfigError(
            f"bulkembed: {socket.gethostname()} has version {__version__}, the driver {planned}; nothing of it is published; "
            "install the same version on every node"
        )


def staged(where: Shard, job: Job, work: Callable[[], T]) -> tuple[Failure | LostAttempt | None, T | None]:
    """What went wrong, which the driver reads, and the result, which only the next stage does."""
    result = attempt(where, job, work)
    return (result, None) if isinstance(result, Failure | LostAttempt) else (None, result)


def prepare(shard: Shard, job: Job) -> tuple[Failure | LostAttempt | None, Prepared | None]:
    return staged(shard, job, lambda: stages.prepare(shard, job))


def publish(embedded: Embedded, job: Job) -> Receipt | Failure | LostAttempt:
    return attempt(embedded.prepared.shard, job, lambda: stages.publish(embedded, job))


def give_up(shard: Shard, job: Job, reason: str) -> Receipt | Failure | LostAttempt:
    return attempt(shard, job, lambda: stages.give_up(shard, job, reason))


class Watched:
    """An embedder that is not asked again once it has failed, and whose process ends when a call is under way and no document
    has come out for `seconds`: what hangs cannot be interrupted, only left. A call may hold thousands of documents, and a slow
    engine is no hung one. The clock runs in C: it needs no lock of Python's."""

    def __init__(self, embedder: Embedder, seconds: float) -> None:
        self.embedder = embedder
        # Setting the clock starts a thread: not for every document, and as much later as it may be set too early.
        self.rest = min(REST_SECONDS, seconds / 10)
        self.seconds = seconds + self.rest
        self.version = embedder.version
        self.token_states = embedder.token_states
        self.on_vector = embedder.on_vector = self.restart
        self.lock = threading.Lock()
        self.calls = 0
        self.set_at = 0.0
        self.broken = ""

    def embed(self, documents: TokenIds) -> Vectors:
        if self.broken:
            raise EngineError(self.broken, "bystander")
        self.count(1)
        try:
            return self.embedder.embed(documents)
        except EngineError as error:
            self.broken = str(error)
            raise
        finally:
            self.count(-1)

    def count(self, change: int) -> None:
        with self.lock:
            self.calls += change
            self.set_clock()

    def restart(self) -> None:
        """A document came out."""
        if time.monotonic() - self.set_at >= self.rest:
            with self.lock:
                self.set_clock()

    def set_clock(self) -> None:
        self.set_at = time.monotonic()
        if self.calls:
            faulthandler.dump_traceback_later(self.seconds, exit=True)
        else:
            faulthandler.cancel_dump_traceback_later()


class Worker:
    """An actor: a model on its device. `load` comes first."""

    embedder: Embedder

    def __init__(self) -> None:
        self.turn = threading.Lock()

    def load(self, job: Job) -> LoadedFiles | BulkembedError:
        """What was loaded, or what stands in the way of embedding."""
        os.environ.update(job.cfg.engine.env)  # it may hold secrets, which must not go through Ray
        try:
            require_version(job)
            loaded, files = loading.load(job.model, job.cfg.max_tokens or 0, job.cfg.engine)
            preflight.require(job.model, job.cfg, job.tokenizer, loaded)
        except BulkembedError as error:
            return error
        except Exception as error:
            log.debug("", exc_info=error)
            return BulkembedError(f"model: {job.model.name} could not be checked: {type(error).__name__}: {error}")
        self.embedder = Watched(loaded, job.cfg.engine.stall_seconds)
        return files

    def sample(self, shard: Shard, job: Job) -> Sampled | Failure | LostAttempt:
        return attempt(shard, job, lambda: stages.sample(shard, job, self.embedder))

    def rate(self, documents: TokenIds, job: Job, seconds: float) -> float:
        """Tokens/s of the engine alone, in calls as this job makes them."""
        return throughput.rate(documents, job.cfg.engine.call_tokens, self.embedder, seconds)

    def run_shard(self, shard: Shard, job: Job) -> Receipt | Failure | LostAttempt:
        return attempt(shard, job, lambda: stages.run_shard(shard, job, self.embedder, self.turn))

    def embed(self, prepared: Prepared, job: Job) -> tuple[Failure | LostAttempt | None, Embedded | None]:
        return staged(prepared.shard, job, lambda: stages.embed(prepared, job, self.embedder))
