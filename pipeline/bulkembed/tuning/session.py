"""Measures engine settings where a run would use them: in embedding actors of this host, on a sample of the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from tempfile import TemporaryDirectory

from bulkembed import stopping
from bulkembed.cluster import connect
from bulkembed.cluster.ray_executor import ray_executor
from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig
from bulkembed.config.toml_files import merge
from bulkembed.embedding.embedder import TokenIds
from bulkembed.errors import BulkembedError, SourceError
from bulkembed.runs import stages
from bulkembed.runs.calibration import sample_of
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.tuning import search
from bulkembed.tuning.search import Changes, Trial

MAX_ACTORS = 1 << 20  # no bound: as many as a run with these settings has
LONGEST_SECONDS = 8.0  # of a measurement, without loading
TRIALS = 40  # that a budget should suffice for, loading aside


@dataclass(frozen=True)
class Host:
    """This host, with token ids of a sample of the source. Ray is connected."""

    job: Job
    documents: TokenIds
    axes: list[search.Axis]

    def trials(self, budget: float) -> Iterator[Trial]:
        """Within about `budget` seconds."""
        seconds = min(LONGEST_SECONDS, max(1.0, budget / TRIALS))
        return search.search(self.axes, lambda changes: self.measure(changes, seconds), time.monotonic() + budget)

    def measure(self, changes: Changes, seconds: float) -> Trial:
        """All of the host's actors at once, as a run has them."""
        engine = EngineConfig.model_validate(merge(self.job.cfg.engine.model_dump(), changes))
        job = replace(self.job, cfg=self.job.cfg.model_copy(update={"engine": engine}))
        try:
            with ray_executor(job, MAX_ACTORS) as executor:
                return Trial(changes, sum(executor.measure_rates(self.documents, seconds)))
        except BulkembedError as error:
            stopping.stop.check()  # then it is no fault of the setting
            return Trial(changes, 0, str(error))


@contextmanager
def host(cfg: RunConfig, documents: int) -> Iterator[Host]:
    """`cfg`: a run of the source; its output is not looked at. Raises SourceError where no document can be read."""
    with TemporaryDirectory(prefix="bulkembed-tune-") as nowhere:
        job, plan = open_job(cfg.model_copy(update={"output": nowhere, "ray": cfg.ray.model_copy(update={"address": None})}))
    sample: list[TokenIds] = []
    for shard in sample_of(plan.pending, documents):
        tokens = stages.prepare(shard, job).tokens
        sample.append([tokens.of(row) for row in range(len(tokens.lengths))])
    found = [ids for part in sample for ids in part][:documents]
    if not found:
        raise SourceError(plan.failures[0].reason if plan.failures else f"source {cfg.source}: no document of it can be embedded")
    connect.connect(job.cfg.ray)
    try:
        cores, gpus = connect.here()
        yield Host(job, found, search.gpu_axes(gpus) if gpus else search.cpu_axes(cores, job.cfg.engine.dtype))
    finally:
        connect.disconnect()
