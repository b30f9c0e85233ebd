"""Runs, in this process and on Ray, and what they wrote."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig
from bulkembed.dataset.snapshots import newest_dataset, snapshot_files
from bulkembed.embedding.environment import engine_environment
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.inspection.verify import verify
from bulkembed.records import Failure, LostAttempt, Receipt
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.progress import Progress
from bulkembed.runs.run import Summary, finish, run
from bulkembed.shards import Shard
from bulkembed.storage.store import Store

if TYPE_CHECKING:
    from bulkembed.cluster.on_demand import OnDemand

# Environment of the processes of `ray_session`: an actor that asks for more waits seconds for a process of its own.
OF_RAYS_PROCESSES = engine_environment(EngineConfig(kind="simulated"), 2)


def simulated(source: object, output: object, model: str, **changes: Any) -> RunConfig:
    """A run with the simulated engine, small shards, and a limit of 64 tokens."""
    places = source if isinstance(source, list) else str(source)
    values: dict[str, Any] = {"source": places, "output": str(output), "model": model, "max_tokens": 64, "keep_columns": ["lang"]}
    values |= {"engine": {"kind": "simulated", "tokens_per_second": 1e7}, "shards": {"max_rows": 20}}
    return RunConfig.model_validate(values | changes)


def read_dataset(output: object, **storage: Any) -> pa.Table:
    """The live rows of a dataset, in source order."""
    store = Store(storage)
    ledger, snapshot = newest_dataset(store, str(output))
    tables = [pq.read_table(pa.BufferReader(store.read(ledger.data_uri(shard)))) for shard in snapshot_files(store, str(output), snapshot)]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def live_names(output: object, **storage: Any) -> list[str]:
    """Names of the live data files of a dataset."""
    store = Store(storage)
    return snapshot_files(store, str(output), newest_dataset(store, str(output))[1])


def problems(output: object) -> list[str]:
    """What `verify` says of a dataset."""
    store = Store()
    return [problem.text for problem in verify(store, *newest_dataset(store, str(output)))]


def on_ray(cfg: RunConfig, report: Callable[[Progress], None] = lambda progress: None) -> Summary:
    """A run as `bulkembed run` does it; needs the fixture `ray_session`."""
    job, planned = open_job(cfg)
    with ray_of_the_session(job) as executor:
        return finish(job, planned, report, executor)


@contextmanager
def ray_of_the_session(job: Job) -> Iterator[OnDemand]:
    """The executor of a run on the Ray of the fixture `ray_session`."""
    from bulkembed.cluster.on_demand import OnDemand

    with ExitStack() as stack:
        executor = OnDemand(job, stack)
        executor.session = OF_RAYS_PROCESSES
        yield executor


def in_one_process(cfg: RunConfig, report: Callable[[Progress], None] = lambda progress: None) -> Summary:
    """A whole run in this process, without Ray, on a simulated engine of 64 dimensions."""
    return run(cfg, report, LocalExecutor(SimulatedEmbedder(64, 1e9)))


class Recorder(LocalExecutor):
    """A simulated engine that notes its shards and stops after `max_shards` of them, as a killed run does."""

    def __init__(self, max_shards: int) -> None:
        super().__init__(SimulatedEmbedder(64, 1e9))
        self.max_shards = max_shards
        self.shards: list[str] = []

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        self.shards += [shard.id for shard in shards[: self.max_shards]]
        return super().run(shards[: self.max_shards], job)


def here(patched: pytest.MonkeyPatch, embedder: SimulatedEmbedder | None = None) -> None:
    """Lets runs of commands and of the API embed in this process, without Ray."""
    patched.setattr("bulkembed.api.OnDemand", lambda job, stack: LocalExecutor(embedder or SimulatedEmbedder(64, 1e9)))
