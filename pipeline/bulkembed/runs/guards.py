"""What holds a run back: a snapshot that would drop too much of the newest one, and too many rejects. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.records import Counts
from bulkembed.shards import ShardId
from bulkembed.source.objects import readable_name

FEW_ROWS = 10  # so many rows may leave under any share: a share of a small dataset is too strict
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
    max_count: float  # so many may leave
    why: str


def held_back(base: Snapshot | None, base_files: list[str], new: Contents, cfg: RunConfig) -> str | None:
    """One line that says what would leave the dataset and how to insist. None where `new` may be published over `base`.

    A run with a limit is a trial. It takes the place of no dataset, so that nothing holds it back."""
    if base is None or cfg.limit is not None:
        return None
    deletions = list(deletions_of(base, base_files, new, cfg))
    for deletion in deletions:
        if deletion.count > deletion.max_count:
            needed = max(other.count for other in deletions)
            return (
                f"{deletion.count:,} of {deletion.total:,} {deletion.unit} of snapshot {base.number} would leave the dataset: "
                f"{deletion.why}; --allow-deletes {needed} lets them go"
            )
    return None


def deletions_of(base: Snapshot, base_files: list[str], new: Contents, cfg: RunConfig) -> Iterator[Deletion]:
    """The rows that would leave with their objects, then the documents that would.

    A row that became a reject is still a row of the source, so rows alone do not show it."""
    before, after = rows_by_name(base_files), rows_by_name(new.shards)
    total, left = before.total(), after.total()
    rule = f"max_deletes ({cfg.max_deletes:g})" if cfg.allow_deletes is None else f"--allow-deletes {cfg.allow_deletes}"
    if new.source != base.source:
        # Names of objects tell whether a source has only moved. A smaller one may be half copied.
        max_count = 0 if left < total else max_deletes(cfg, total)
        why = f"they were made from {base.source}, this run is from {new.source}"
        yield Deletion((before - after).total(), total, "rows", bound_for(cfg, max_count), why)
    else:
        why = f"the source has shrunk by more than {rule}"
        yield Deletion(max(0, total - left), total, "rows", bound_for(cfg, max_deletes_or_few(cfg, total)), why)
    if new.documents is not None:
        why = f"they are no longer embedded, more than {rule}; the rejects say why, and retry-rejects embeds them after a fix"
        gone = max(0, base.documents - new.documents)
        yield Deletion(gone, base.documents, "documents", bound_for(cfg, max_deletes_or_few(cfg, base.documents)), why)


def rows_by_name(shards: Iterable[str]) -> Counter[str]:
    """Rows of shards, by the readable name of their object: the same for every version of it."""
    rows: Counter[str] = Counter()
    for shard_id in map(ShardId.parse, shards):
        rows[readable_name(shard_id.object_id)] += shard_id.rows
    return rows


def bound_for(cfg: RunConfig, max_count: float) -> float:
    """How many rows the run may drop: `allow_deletes` where it is given, else `max_count`."""
    return max_count if cfg.allow_deletes is None else cfg.allow_deletes


def max_deletes(cfg: RunConfig, total: int) -> float:
    """The bound of `max_deletes` in rows. 0, or a number from 1 on, is a count; a number between is a share of `total`."""
    return cfg.max_deletes * total if cfg.max_deletes < 1 else cfg.max_deletes


def max_deletes_or_few(cfg: RunConfig, total: int) -> float:
    """The bound of `max_deletes`. Where that is a share, FEW_ROWS may always leave."""
    return max(FEW_ROWS, max_deletes(cfg, total)) if 0 < cfg.max_deletes < 1 else cfg.max_deletes


def too_many_rejects(max_rejects: float | None, counts: Counts, rows_total: int) -> bool:
    """Whether the rejects of all rows done, by this run or earlier ones, are more than `max_rejects`.

    0, or a number from 1 on, is a count. A share counts from REJECTS_AFTER rows on, and at the end."""
    if max_rejects is None or not counts.rejects:
        return False
    if max_rejects == 0 or max_rejects >= 1:
        return counts.rejects > max_rejects
    return counts.rejects > max_rejects * counts.rows and (counts.rows >= REJECTS_AFTER or counts.rows == rows_total)
