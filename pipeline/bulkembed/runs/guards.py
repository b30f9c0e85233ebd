"""What holds a run back: documents that would leave the dataset, a source that is not ready, and too many rejects. Pure."""

from __future__ import annotations

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.records import Counts

FEW = 10  # so many documents may leave under any share: a share of a small dataset is too strict
REJECTS_AFTER = 10_000  # rows after which a share of rejects counts: a bad first shard does not mean a broken corpus


def held_back(parent: Snapshot | None, deletes: int, cfg: RunConfig) -> str | None:
    """One line that says how many documents would leave and how to insist. None where the dataset may lose so many."""
    if parent is None or cfg.limit is not None or deletes <= max_deletes(cfg, parent.documents):
        return None
    rule = f"max_deletes ({cfg.max_deletes:g})" if cfg.allow_deletes is None else f"--allow-deletes {cfg.allow_deletes}"
    return (
        f"{deletes:,} of {parent.documents:,} documents of snapshot {parent.number} would leave the dataset, more than {rule}; "
        f"mend the source {cfg.source}, or let them go with --allow-deletes {deletes}"
    )


def max_deletes(cfg: RunConfig, documents: int) -> float:
    """How many documents may leave. `max_deletes` of 0, or from 1 on, is a count; a number between is a share, and FEW may always leave."""
    if cfg.allow_deletes is not None:
        return cfg.allow_deletes
    return max(FEW, cfg.max_deletes * documents) if 0 < cfg.max_deletes < 1 else cfg.max_deletes


def too_many_rejects(cfg: RunConfig, known: int, tonight: Counts, rows: int) -> str | None:
    """What `max_rejects` says to these rejects; None where it allows them. `known`: rejects before embedding; `rows`: of the source.

    0, or a number from 1 on, is a count, and a number between is a share of all rows. A share is also held against what was embedded
    tonight, once that is REJECTS_AFTER rows: an engine that rejects everything is noticed early."""
    if cfg.max_rejects is None:
        return None
    rejects = known + tonight.rejects
    is_share = 0 < cfg.max_rejects < 1
    if rejects > (cfg.max_rejects * rows if is_share else cfg.max_rejects):
        return f"{rejects:,} of {rows:,} rows were rejected, more than it allows"
    if is_share and tonight.rows >= REJECTS_AFTER and tonight.rejects > cfg.max_rejects * tonight.rows:
        return f"{tonight.rejects:,} of the first {tonight.rows:,} rows were rejected, more than it allows"
    return None
