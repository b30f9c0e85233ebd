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
from bulkembed.source.widening import Misfits, scan_or_misfits, widened
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
    """The types that a first run begins with: by all footers, and by the first rows of JSON lines."""
    return carried_columns(STORE, objects, recipe(cfg), cfg.source_text)


def settled_types(objects: list[SourceObject], cfg: RunConfig) -> pa.Schema:
    """The types that a first run ends with."""
    carried, tried = carried_of(objects, cfg), list[pa.Schema]()
    while misfits := [found for item in objects if isinstance(found := scan_or_misfits(STORE, item, recipe(cfg), carried, ()), Misfits)]:
        tried.append(carried)
        carried = widened(carried, misfits, recipe(cfg).row_schema, tried)
    return carried


def read_settled(path: Path, cfg: RunConfig) -> list[Documents]:
    """The documents of a source, in the types that a first run ends with."""
    carried = settled_types(source_objects(STORE, str(path)), cfg)
    return [reader.read_documents(STORE, shard, recipe(cfg), carried) for shard in shards_of(path)]


def read(path: Path, cfg: RunConfig, max_rows: int = 10**6) -> list[Documents]:
    carried = carried_of(source_objects(STORE, str(path)), cfg)
    return [reader.read_documents(STORE, shard, recipe(cfg), carried) for shard in shards_of(path, max_rows)]
