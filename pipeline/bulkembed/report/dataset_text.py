"""A dataset as text: its runs, its snapshots, rows that were embedded again, feeds of changes, and hits of a search."""

from __future__ import annotations

from collections.abc import Sequence

from bulkembed.dataset.feed import Feed
from bulkembed.dataset.leftovers import Leftovers
from bulkembed.dataset.repair import Repair
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.errors import in_one_line
from bulkembed.inspection.resample import Resample
from bulkembed.inspection.search import Hit
from bulkembed.inspection.status import RunStatus
from bulkembed.report.formatting import counted, lines, size
from bulkembed.source.objects import LeftOutNames

MAX_SHOWN_CHARACTERS = 160  # of a column of a hit


def status_text(output: str, runs: Sequence[RunStatus]) -> str:
    """Every run below an output: its counts, and which one is current."""
    return "\n".join(map(run_status_text, runs)) or f"{output}: no run has been here"


def run_status_text(run: RunStatus) -> str:
    provenance = run.provenance
    return lines(
        [
            ("run", f"{run.fingerprint}{newest_text(run)}"),
            *([("model", f"{provenance['model']}, {provenance['vectors']}")] if provenance else []),
            ("shards", f"{run.shards:,}"),
            ("documents", f"{run.counts.documents:,}"),
            ("rejects", f"{run.counts.rejects:,}"),
            ("tokens", f"{run.counts.tokens:,}"),
            *snapshot_rows(run.snapshot),
        ]
    )


def snapshot_rows(snapshot: Snapshot | None) -> list[tuple[str, str]]:
    """What the newest snapshot was made of, where that are tables, and what it was made without."""
    if snapshot is None:
        return []
    left_out = [("left out", str(LeftOutNames(**names))) for names in snapshot.left_out]
    return [*(("table", table) for table in snapshot.tables), *left_out, *(("unreadable", name) for name in snapshot.unreadable)]


def newest_text(run: RunStatus) -> str:
    if run.snapshot is None:
        return ""
    newest = f"snapshot {run.snapshot.number} of {run.snapshot.created}, line {run.line}"
    return f" (current: {newest})" if run.is_current else f" (newest: {newest}; not current)"


def snapshots_text(output: str, snapshots: Sequence[Snapshot], current: int | None) -> str:
    """A line for each snapshot, the current one marked."""
    if not snapshots:
        return f"{output}: no run has finished here"
    titles = ("snapshot", "parent", "line", "created", "documents", "rejects", "files")
    rows = [titles, *(snapshot_row(snapshot) for snapshot in snapshots)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    marks = ["", *(snapshot_mark(snapshot, current) for snapshot in snapshots)]
    padded = ("  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"{text}{mark}" for text, mark in zip(padded, marks, strict=True))


def snapshot_row(snapshot: Snapshot) -> tuple[str, ...]:
    counts = (f"{count:,}" for count in (snapshot.documents, snapshot.rejects, snapshot.files))
    return (str(snapshot.number), str(snapshot.parent or "-"), snapshot.line, snapshot.created, *counts)


def snapshot_mark(snapshot: Snapshot, current: int | None) -> str:
    """What stands after the row of a snapshot: whether it is current, and whether it is a trial."""
    trial = f"  trial of {counted(snapshot.limit, 'row')}" if snapshot.limit is not None else ""
    return f"{'  current' * (snapshot.number == current)}{trial}"


def resample_text(resample: Resample) -> str:
    """How like the vectors of some rows are to those that were embedded again."""
    rows = [("embedded", f"{counted(resample.rows, 'row')} again")]
    if resample.unknown:
        rows.append(("not found", f"{counted(resample.unknown, 'document')}, in no key file of the snapshot: cannot be embedded again"))
    for name, cosines in resample.cosines.items():
        if len(cosines):
            rows.append((name, f"cosine min {cosines.min():.6f} mean {cosines.mean():.6f}"))
    return lines(rows)


def whole_text(snapshot: Snapshot) -> str:
    """What a snapshot holds in which nothing is wrong."""
    holds = f"{counted(snapshot.files, 'file')}, {counted(snapshot.documents, 'document')}"
    return f"snapshot {snapshot.number}: {holds}, all as their receipts say"


def leftovers_text(leftovers: Leftovers) -> str:
    """What no snapshot lists."""
    found = f"{counted(leftovers.objects, 'object')}, {size(leftovers.size)}, in no snapshot"
    return lines(
        [("leftovers", f"{found}; `bulkembed gc` deletes them once they are old enough"), *(("", uri) for uri in leftovers.examples)]
    )


def repair_text(repair: Repair, removed: str, written: str) -> str:
    """What a repair does: an object a line."""
    return lines([*((removed, uri) for uri in repair.removed), *((written, uri) for uri in repair.receipts)])


def feed_text(folder: str, feed: Feed) -> str:
    """What a feed holds, and where."""
    added = f"{feed.keys_added:,} of new keys; {feed.upserts - feed.vectors_changed:,} with the vector they had"
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in feed.reasons.items())
    return lines(
        [
            ("feed", folder),
            ("snapshots", f"{feed.from_snapshot} to {feed.to_snapshot}"),
            ("upserts", f"{feed.upserts:,} ({added})" if feed.upserts else "0"),
            ("deletes", f"{feed.deletes:,} ({reasons})" if feed.deletes else "0"),
        ]
    )


def hits_text(hits: list[Hit]) -> str:
    """Score and columns of each hit, long texts cut."""
    texts = []
    for hit in hits:
        texts.append(f"{hit.score:.3f}  {in_one_line(str(hit.columns['id']))}")
        for name, value in hit.columns.items():
            if name != "id" and value is not None:
                text = " ".join(str(value).split())
                texts.append(f"       {name}: {text[:MAX_SHOWN_CHARACTERS]}{'…' if len(text) > MAX_SHOWN_CHARACTERS else ''}")
    return "\n".join(texts)
