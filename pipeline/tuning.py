"""Measures engine settings where a run would use them: in embedding actors of this host, on a sample of the source."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import cluster, dataflow, reader, tune
from pipeline.config import EngineConfig, RunConfig, merge
from pipeline.errors import BulkembedError, SourceError
from pipeline.records import Failure
from pipeline.run import SAMPLE_SHARDS, open_job, sample_of
from pipeline.stages import Job
from pipeline.tune import Changes, Trial


@dataclass(frozen=True)
class Host:
    """This host, with a sample of the source on it. Ray is connected."""

    job: Job  # of the sample
    documents: int
    axes: list[tune.Axis]

    def trials(self, seconds: float) -> Iterator[Trial]:
        return tune.search(self.axes, self.measure, time.monotonic() + seconds)

    def measure(self, changes: Changes) -> Trial:
        """All of the host's actors at once, as a run has them."""
        engine = EngineConfig.model_validate(merge(self.job.cfg.engine.model_dump(), changes))
        job = replace(self.job, cfg=self.job.cfg.model_copy(update={"engine": engine}))
        rates: list[float] = []
        try:
            _, plan = open_job(self.job.cfg)
            with dataflow.engine(job, shards=1 << 20) as flow:
                for found in flow.rates(plan.pending[0], job):
                    if not isinstance(found, float):
                        return Trial(changes, 0, found.reason.strip().splitlines()[-1])
                    rates.append(found)
        except BulkembedError as error:
            return Trial(changes, 0, str(error))
        return Trial(changes, sum(rates))


@contextmanager
def host(cfg: RunConfig, documents: int) -> Iterator[Host]:
    """`cfg`: a run of the source; its output is never touched. Raises SourceError where no document can be read."""
    with TemporaryDirectory(prefix="bulkembed-tune-") as folder:
        place = {"output": f"{folder}/out", "ray": cfg.ray.model_copy(update={"address": None, "shards_in_flight": 1})}
        texts = sample_texts(cfg.model_copy(update=place), documents)
        (Path(folder) / "in").mkdir()
        pq.write_table(pa.table({"id": range(len(texts)), "text": texts}), f"{folder}/in/sample.parquet")
        own: dict[str, Any] = {"source": f"{folder}/in", "id_column": "id", "text_columns": ("text",), "template": None}
        own |= {"keep_columns": (), "column_types": {}, "storage": {}, "limit": None}
        job, _ = open_job(cfg.model_copy(update=place | own))
        cluster.connect(job.cfg.ray)
        try:
            cores, gpus = cluster.here()
            yield Host(job, len(texts), tune.gpu_axes(gpus) if gpus else tune.cpu_axes(cores))
        finally:
            cluster.disconnect()


def sample_texts(cfg: RunConfig, documents: int) -> list[str]:
    """Composed texts from all over the source."""
    job, plan = open_job(cfg)
    texts: list[str] = []
    for shard in sample_of(plan.pending, -(-documents // min(SAMPLE_SHARDS, len(plan.pending)))) if plan.pending else ():
        texts += reader.read(job.store, shard, job.cfg, job.carried).texts
    if not texts:
        failed: list[Failure] = plan.failures
        raise SourceError(failed[0].reason if failed else f"source {cfg.source}: no document of it can be embedded")
    return texts[:documents]
