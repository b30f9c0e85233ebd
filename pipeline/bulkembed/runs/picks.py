"""Rows of source objects that are to be embedded -> shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from bulkembed.runs.job import Job
from bulkembed.runs.versions import Versions
from bulkembed.shards import Shard
from bulkembed.source.objects import SourceObject
from bulkembed.source.planning import Bounds, Rows, gathered, shards_of_object


def bounds_of(job: Job) -> Bounds:
    """How large a shard of this job may be."""
    shards = job.cfg.shards
    return Bounds(max(1, min(shards.max_rows, (shards.memory_mib << 20) // (job.model.width * 4))), shards.text_mib << 20)


def shards_of_rows(
    job: Job, objects: Sequence[SourceObject], rows_of: Iterable[tuple[int, Rows]], versions: Versions, parent: int
) -> list[Shard]:
    """Shards of these documents in source order. `rows_of`: indices into `objects`, and rows; sorted.

    Without a parent a shard holds rows of one object. The few new rows of a night lie all over the objects, so a shard gathers many."""
    bounds = bounds_of(job)
    opened = ((objects[owner], versions.layout(objects[owner].id), rows) for owner, rows in rows_of)
    if parent:
        return list(gathered(opened, bounds, parent))
    shards: list[Shard] = []
    for item, layout, rows in opened:
        # All rows of an object are cut at its row groups.
        shards += shards_of_object(item, layout, bounds) if len(rows) == layout.rows else gathered(iter([(item, layout, rows)]), bounds, 0)
    return shards
