"""What a finished dataset lost, doubled or changed."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkembed import schema
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset, snapshot_files
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import BulkembedError
from bulkembed.inspection.verify import verify
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from scripts.chaos_rounds.material import WORK, Places
from tests.support.nights import sorted_rows

MAX_COMPARED = 100_000  # documents up to which all vectors are compared with those of an undisturbed run


@dataclass(frozen=True)
class Outcome:
    """What is wrong with the dataset after a night."""

    lost: int = 0  # documents
    doubled: int = 0
    different: bool = False  # rows or vectors differ from those of a run that nothing disturbs
    problems: tuple[str, ...] = ()  # as `verify` says them

    @property
    def is_wrong(self) -> bool:
        return self != Outcome()


def outcome_of(where: Places, model: str, documents: int, engine: str) -> Outcome:
    """Compares the dataset with the source. An error that says what is damaged is a problem as well."""
    store = Store(where.storage)
    try:
        ledger, snapshot = newest_dataset(store, where.output)
        if problems := tuple(problem.text for problem in verify(store, ledger, snapshot)):
            return Outcome(problems=problems)
        found = rows(where.output, where.storage)
    except (BulkembedError, FileNotFoundError, pa.ArrowException) as error:
        return Outcome(problems=(f"{type(error).__name__}: {error}",))
    times = Counter(found["id"].to_pylist())
    is_compared = engine == "simulated" and documents <= MAX_COMPARED
    different = is_compared and not sorted_rows(found).equals(sorted_rows(rows(run_undisturbed(where, model), {})))
    return Outcome(documents - len(times), sum(times.values()) - len(times), different)


def run_undisturbed(where: Places, model: str) -> str:
    """Embeds the source with the same stages in this process. Returns the output."""
    output = WORK / "undisturbed"
    shutil.rmtree(output, ignore_errors=True)
    values = {
        "source": where.source,
        "storage": where.storage,
        "output": str(output),
        "model": model,
        "max_tokens": 64,
        "engine": {"kind": "simulated"},
    }
    width = describe(model, None).width
    run(RunConfig.model_validate(values), lambda progress: None, LocalExecutor(SimulatedEmbedder(width, 1e9))).require_complete()
    return str(output)


def rows(output: str, storage: dict[str, Any]) -> pa.Table:
    """All rows of a dataset, without the footers' metadata."""
    store = Store(storage)
    ledger, snapshot = newest_dataset(store, output)
    tables = [schema.table_of(store.read(ledger.data_uri(shard))) for shard in snapshot_files(store, output, snapshot)]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
