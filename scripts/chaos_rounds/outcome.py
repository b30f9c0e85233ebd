"""What a finished dataset lost, doubled or changed."""

from __future__ import annotations

import shutil
from collections import Counter
from typing import Any

import pyarrow as pa

from bulkembed import schema
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset, snapshot_files
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.inspection.verify import verify
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from scripts.chaos_rounds.material import WORK, Places
from tests.support.nights import sorted_rows

FAULTS = ("lost", "doubled", "problems", "different")
MAX_COMPARED = 100_000  # documents up to which all vectors are compared with those of an undisturbed run


def count_faults(output: str, storage: dict[str, Any], documents: int) -> dict[str, int]:
    """How many documents the dataset lost or doubled, and how many problems `verify` finds."""
    store = Store(storage)
    ledger, snapshot = newest_dataset(store, output)
    ids: list[int] = []
    for shard in snapshot_files(store, output, snapshot):
        ids += schema.table_of(store.read(ledger.data_uri(shard)), ["id"])["id"].to_pylist()
    times = Counter(ids)
    return {
        "lost": documents - len(times),
        "doubled": sum(count - 1 for count in times.values()),
        "problems": len(list(verify(store, ledger, snapshot))),
        "files": snapshot.files,
    }


def differs_from_undisturbed(where: Places, model: str) -> bool:
    """Whether any row or vector differs from those of a run from scratch in this process, where nothing is killed."""
    undisturbed = run_undisturbed(where, model)
    return not sorted_rows(rows(where.output, where.storage)).equals(sorted_rows(rows(undisturbed, {})))


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
