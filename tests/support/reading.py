"""Documents of a source, read without a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from bulkembed.config.run_config import RunConfig
from bulkembed.records import Documents
from bulkembed.shards import Shard
from bulkembed.source import planning, reader
from bulkembed.source.columns import carried_columns
from bulkembed.source.objects import SourceObject, source_objects
from bulkembed.source.planning import Bounds
from bulkembed.storage.store import Store
from tests.support.models import recipe

STORE = Store()


def config(**values: Any) -> RunConfig:
    return RunConfig.model_validate({"source": "in", "output": "out", "model": "m"} | values)


def shards_of(path: Path, max_rows: int = 10**6) -> list[Shard]:
    objects = source_objects(STORE, str(path))
    shards, failures = planning.plan(STORE, objects, lambda item, layout: None, [], Bounds(max_rows, 1 << 40))
    assert failures == []
    return shards


def carried_of(objects: list[SourceObject], cfg: RunConfig) -> pa.Schema:
    return carried_columns(STORE, objects, recipe(cfg), cfg.source_text)


def read(path: Path, cfg: RunConfig, max_rows: int = 10**6) -> list[Documents]:
    carried = carried_of(source_objects(STORE, str(path)), cfg)
    return [reader.read_documents(STORE, shard, recipe(cfg), carried) for shard in shards_of(path, max_rows)]
