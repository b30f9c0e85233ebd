"""The verbs as they run in processes of a cluster: what goes wrong with a shard comes back as a value.

A lost process is another matter: `dataflow` sees to it.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Callable
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from pipeline import embedder, gate, model, stages
from pipeline.errors import BulkembedError
from pipeline.records import Embedded, Failure, Prepared, Receipt, Shard
from pipeline.stages import Job

T = TypeVar("T")
log = logging.getLogger(__name__)


def attempt(where: Shard, work: Callable[[], T]) -> T | Failure:
    """The result, or what went wrong as a value: one bad shard must not end the run of the others."""
    try:
        return work()
    except BulkembedError as error:
        return Failure(where.id, str(error))
    except Exception:  # noqa: BLE001
        # A fault of the code or the engine: the whole traceback, so that it can be found.
        return Failure(where.id, traceback.format_exc())


def prepare(shard: Shard, job: Job) -> Prepared | Failure:
    return attempt(shard, lambda: stages.prepare(shard, job))


def publish(embedded: tuple[Embedded, str] | Failure, job: Job) -> Receipt | Failure:
    if isinstance(embedded, Failure):
        return embedded
    vectors, engine_version = embedded
    return attempt(vectors.shard, lambda: stages.publish(vectors, job, engine_version))


class Worker:
    """An actor: a model on its device. `load` comes first."""

    embedder: embedder.Embedder

    def load(self, job: Job) -> BulkembedError | None:
        """What stands in the way of embedding, if anything."""
        needs_weights = job.cfg.engine.kind == "vllm"
        try:
            path = model.locate(job.model.name, job.model.revision, weights=needs_weights)
            self.embedder = embedder.load(str(path), job.model, job.cfg.max_tokens or 0, job.cfg.engine)
            gate.require(job.model, job.cfg, job.tokenizer, self.embedder)
        except BulkembedError as error:
            return error
        except Exception as error:
            log.debug("", exc_info=error)
            return BulkembedError(f"model: {job.model.name} could not be loaded: {type(error).__name__}: {error}")
        return None

    def sample(self, shard: Shard, job: Job) -> npt.NDArray[np.float32] | Failure:
        return attempt(shard, lambda: stages.embed(stages.prepare(shard, job), job, self.embedder).vectors)

    def run_shard(self, shard: Shard, job: Job) -> Receipt | Failure:
        return attempt(shard, lambda: stages.run_shard(shard, job, self.embedder))

    def embed(self, prepared: Prepared | Failure, job: Job) -> tuple[Embedded, str] | Failure:
        if isinstance(prepared, Failure):
            return prepared
        return attempt(prepared.shard, lambda: (stages.embed(prepared, job, self.embedder), self.embedder.version))
