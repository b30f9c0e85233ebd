"""What holds a run back: a snapshot that would drop too much of the newest one, and too many rejects. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.records import Counts, ShardId
from bulkembed.source.objects import readable_name

SPARED_ROWS = 10  # may always leave with a shrinking source: a share of a small dataset is too strict
REJECTS_AFTER = 10_000  # rows after which a share of rejects counts: a bad first shard does not mean a broken corpus


@dataclass(frozen=True)
class Contents:
    """What a run would publish, as far as it is known."""

    source: str  # see storage.absolute
    shards: Iterable[str]
    documents: int | None = None  # unknown until all rows are embedded


@dataclass(frozen=True)
class Deletion:
    """Rows or documents of the newest snapshot that would leave the dataset."""

    count: int
    total: int
    unit: str
    max_count: float  # that the run may take out
    why: str


def held_back(base: Snapshot | None, new: Contents, cfg: RunConfig) -> str | None:
    """One line that says what would leave the dataset and how to insist. None where `new` may be published over `base`."""
    if base is None:
        return None
    deletions = list(deletions_of(base, new, cfg))
    for deletion in deletions:
        if deletion.count > deletion.max_count:
            needed = max(other.count for other in deletions)
            return (
                f"{deletion.count:,} of {deletion.total:,} {deletion.unit} of snapshot {base.number} would leave the dataset: "
                f"{deletion.why}; --allow-deletes {needed} lets them go"
            )
    return None


def deletions_of(base: Snapshot, new: Contents, cfg: RunConfig) -> Iterator[Deletion]:
    """Rows by the sources' objects, then documents: a row that became a reject is still a row of the source."""
    before, after = rows_by_name(base.shards), rows_by_name(new.shards)
    total, left = before.total(), after.total()
    rule = f"max_deletes ({cfg.max_deletes:g})" if cfg.allow_deletes is None else f"--allow-deletes {cfg.allow_deletes}"
    if cfg.limit is not None and cfg.limit <= left < total:  # a source with fewer rows than the limit is whole
        why = f"--limit {cfg.limit} takes a part of the source (give a trial an --output of its own)"
        yield Deletion(total - left, total, "rows", allowed(cfg, 0), why)
    elif new.source != base.source:
        # Names of objects tell whether a source has only moved. A smaller one may be half copied.
        max_count = 0 if left < total else max_deletes(cfg, total)
        why = f"they were made from {base.source}, this run is from {new.source}"
        yield Deletion((before - after).total(), total, "rows", allowed(cfg, max_count), why)
    else:
        why = f"the source has shrunk by more than {rule}"
        yield Deletion(max(0, total - left), total, "rows", allowed(cfg, spared(cfg, total)), why)
    if new.documents is not None:
        why = f"they are no longer embedded, more than {rule}; the rejects say why, and retry-rejects embeds them after a fix"
        gone = max(0, base.documents - new.documents)
        yield Deletion(gone, base.documents, "documents", allowed(cfg, spared(cfg, base.documents)), why)


def rows_by_name(shards: Iterable[str]) -> Counter[str]:
    """Rows of shards, by the readable name of their object: the same for every version of it."""
    rows: Counter[str] = Counter()
    for shard_id in map(ShardId.parse, shards):
        rows[readable_name(shard_id.object_id)] += shard_id.rows
    return rows


def allowed(cfg: RunConfig, max_count: float) -> float:
    return max_count if cfg.allow_deletes is None else cfg.allow_deletes


def max_deletes(cfg: RunConfig, total: int) -> float:
    """0, or a number from 1 on, is a count; what lies between is a share of `total`."""
    return cfg.max_deletes * total if cfg.max_deletes < 1 else cfg.max_deletes


def spared(cfg: RunConfig, total: int) -> float:
    """As `max_deletes`; a share always spares SPARED_ROWS."""
    return max(SPARED_ROWS, max_deletes(cfg, total)) if 0 < cfg.max_deletes < 1 else cfg.max_deletes


def too_many_rejects(max_rejects: float | None, counts: Counts, rows_total: int) -> bool:
    """Of all rows done, in whatever run. 0, or a number from 1 on, is a count. A share counts from REJECTS_AFTER rows on,
    or at the end."""
    if max_rejects is None or not counts.rejects:
        return False
    if max_rejects == 0 or max_rejects >= 1:
        return counts.rejects > max_rejects
    return counts.rejects > max_rejects * counts.rows and (counts.rows >= REJECTS_AFTER or counts.rows == rows_total)
