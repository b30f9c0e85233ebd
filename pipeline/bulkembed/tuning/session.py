"""Measures engine settings in embedding actors of this host, on a sample of the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from bulkembed import stopping
from bulkembed.cluster import connect
from bulkembed.cluster.ray_executor import ray_executor
from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig
from bulkembed.config.toml_files import merge
from bulkembed.embedding.embedder import TokenIds
from bulkembed.errors import BulkembedError, SourceError
from bulkembed.runs import stages
from bulkembed.runs.calibration import spread_sample
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.shards import Shard
from bulkembed.tuning import search
from bulkembed.tuning.search import Changes, Trial

UNLIMITED_ACTORS = 1 << 20  # the settings decide how many actors there are
MAX_SECONDS = 8.0  # of a measurement, without loading
MIN_SECONDS = 1.0
TARGET_TRIALS = 40  # trials that should fit the budget, without loading


@dataclass(frozen=True)
class Host:
    """This host, with Ray connected, and a sample of the source as token ids."""

    job: Job
    documents: TokenIds
    axes: list[search.Axis]

    def trials(self, budget: float) -> Iterator[Trial]:
        """The trials of a search that takes about `budget` seconds."""
        seconds = min(MAX_SECONDS, max(MIN_SECONDS, budget / TARGET_TRIALS))
        return search.search_settings(self.axes, lambda changes: self.measure(changes, seconds), time.monotonic() + budget)

    def measure(self, changes: Changes, seconds: float) -> Trial:
        """The rate of all actors of this host at once, as in a run."""
        engine = EngineConfig.model_validate(merge(self.job.engine.model_dump(), changes))
        job = self.job.with_engine(engine)
        try:
            with ray_executor(job, UNLIMITED_ACTORS) as executor:
                return Trial(changes, sum(executor.measure_rates(self.documents, seconds)))
        except BulkembedError as error:
            stopping.stop.check()  # raises where a signal ended the actors, which is no fault of the settings
            return Trial(changes, 0, str(error))


@contextmanager
def open_host(cfg: RunConfig, documents: int) -> Iterator[Host]:
    """Takes a sample of the source of `cfg`, and connects Ray. It writes no output.

    Raises SourceError where no document can be read."""
    with TemporaryDirectory(prefix="bulkembed-tune-") as empty_folder:
        local = cfg.ray.model_copy(update={"address": "local"})
        job, plan = open_job(cfg.model_copy(update={"output": empty_folder, "ray": local}))
    sample = sample_ids(job, plan.pending, documents)
    if not sample:
        raise SourceError(plan.failures[0].reason if plan.failures else f"source {cfg.source_text}: no document of it can be embedded")
    with connect.session(job.cfg.ray):
        cores, gpus = connect.here()
        yield Host(job, sample, search.gpu_axes(gpus) if gpus else search.cpu_axes(cores, job.recipe.vector_key.engine_dtype))


def sample_ids(job: Job, pending: list[Shard], documents: int) -> TokenIds:
    """Token ids of up to so many documents, from all over the source."""
    ids: list[npt.NDArray[np.int32]] = []
    for shard in spread_sample(pending, documents):
        tokens = stages.prepare(shard, job).tokens
        ids += [tokens.of(row) for row in range(len(tokens.lengths))]
    return ids[:documents]
