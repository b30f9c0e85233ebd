"""Documents of a source, read without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bulkembed.config.run_config import RunConfig
from bulkembed.records import Documents, Shard
from bulkembed.source import planning, reader
from bulkembed.source.columns import carried_schema
from bulkembed.storage.store import Store

STORE = Store()


def config(**values: Any) -> RunConfig:
    return RunConfig.model_validate({"source": "in", "output": "out", "model": "m"} | values)


def shards_of(path: Path, most_rows: int = 10**6) -> list[Shard]:
    objects = planning.source_objects(STORE, str(path))
    plan = planning.plan(STORE, objects, [], most_rows, None, lambda item, layout: None)
    assert plan.failures == []
    return plan.pending


def read(path: Path, cfg: RunConfig, most_rows: int = 10**6) -> list[Documents]:
    carried = carried_schema(STORE, planning.source_objects(STORE, str(path)), cfg)
    return [reader.read(STORE, shard, cfg, carried) for shard in shards_of(path, most_rows)]
