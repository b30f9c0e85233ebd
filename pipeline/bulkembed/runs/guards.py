"""What holds a run back: documents that would leave the dataset, a source that is not ready, and too many rejects. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.manifests import SourceVersion
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import HeldBack
from bulkembed.records import Counts
from bulkembed.storage.uris import canonical

FEW = 10  # so many documents may leave under any share: a share of a small dataset is too strict
REJECTS_AFTER = 10_000  # rows after which a share of rejects counts: a bad first shard does not mean a broken corpus


def held_back(parent: Snapshot | None, deletes: int, cfg: RunConfig) -> str | None:
    """One line that says how many documents would leave and how to insist. None where the dataset may lose so many."""
    if parent is None or cfg.limit is not None or deletes <= most_deletes(cfg.max_deletes, cfg.allow_deletes, parent.documents):
        return None
    return (
        f"{deletes:,} of {parent.documents:,} documents of snapshot {parent.number} would leave the dataset, more than "
        f"{rule(cfg.max_deletes, cfg.allow_deletes)}; mend the source {cfg.source_text}{differences(parent, cfg)}, or let them go with "
        f"--allow-deletes {deletes}"
    )


def no_document(sources: Sequence[SourceVersion], reasons: Mapping[str, int], deletes: int, cfg: RunConfig) -> str | None:
    """One line that says why a source with rows gives no document at all. `reasons`: those of the rejects, as far as they are known."""
    rows = sum(item.rows for item in sources)
    if rows == 0 or rows > sum(item.rejects for item in sources) or cfg.limit is not None or cfg.allow_deletes is not None:
        return None
    return (
        f"none of the {rows:,} rows of the source {cfg.source_text} is a document{in_brackets(reasons)}; name the columns with "
        f"--text-column and --id-column, or mend the source, or let the dataset be empty with --allow-deletes {deletes}"
    )


def in_brackets(reasons: Mapping[str, int]) -> str:
    """` (2 null_text, 1 not_json)`, or nothing where there are none."""
    text = ", ".join(f"{count:,} {reason}" for reason, count in sorted(reasons.items()))
    return f" ({text})" if text else ""


def differences(parent: Snapshot, cfg: RunConfig) -> str:
    """What a run asks for that its parent did not, and that lets documents go."""
    other_places = sorted(map(canonical, cfg.sources)) != sorted(map(canonical, parent.sources))
    asked = ["is not that of the snapshot"] * other_places + ["has another exclude"] * (sorted(cfg.exclude) != parent.exclude)
    asked += ["is read as another format"] * (cfg.format != parent.format)
    return f", which {' and '.join(asked)}" if asked else ""


def refuse_fewer(current: Snapshot | None, wanted: Snapshot, max_deletes: float, allow_deletes: int | None) -> None:
    """Raises HeldBack where a snapshot must not take the place of the current one, because it has too few documents."""
    fewer = current.documents - wanted.documents if current else 0
    if current is None or fewer <= most_deletes(max_deletes, allow_deletes, current.documents):
        return
    raise HeldBack(
        f"held back: nothing was switched: snapshot {wanted.number} has {wanted.documents:,} documents, {fewer:,} fewer than the current "
        f"snapshot {current.number}, more than {rule(max_deletes, allow_deletes)}; let them go with --allow-deletes {fewer}"
    )


def rule(max_deletes: float, allow_deletes: int | None) -> str:
    return f"max_deletes ({max_deletes:g})" if allow_deletes is None else f"--allow-deletes {allow_deletes}"


def most_deletes(max_deletes: float, allow_deletes: int | None, documents: int) -> float:
    """How many documents may leave. `max_deletes` of 0, or from 1 on, is a count; a number between is a share, and FEW may always leave."""
    if allow_deletes is not None:
        return allow_deletes
    return max(FEW, max_deletes * documents) if 0 < max_deletes < 1 else max_deletes


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
