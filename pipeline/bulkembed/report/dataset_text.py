"""A dataset as text: its runs, rows that were embedded again, feeds of changes, and hits of a search."""

from __future__ import annotations

from collections.abc import Sequence

from bulkembed.dataset.feed import Feed
from bulkembed.inspection.resample import Resample
from bulkembed.inspection.search import Hit
from bulkembed.inspection.status import RunStatus
from bulkembed.report.formatting import lines

MAX_SHOWN_CHARACTERS = 160  # of a column of a hit


def status_text(output: str, runs: Sequence[RunStatus]) -> str:
    """Every run below an output: its counts, and which one is live."""
    return "\n".join(map(run_status_text, runs)) or f"{output}: no run has been here"


def run_status_text(run: RunStatus) -> str:
    live = f" (live: snapshot {run.snapshot.number} of {run.snapshot.created})" if run.snapshot is not None else ""
    provenance = run.provenance
    return lines(
        [
            ("run", f"{run.fingerprint}{live}"),
            *([("model", f"{provenance['model']}, {provenance['vectors']}")] if provenance else []),
            ("shards", f"{run.shards:,}"),
            ("documents", f"{run.counts.documents:,}"),
            ("rejects", f"{run.counts.rejects:,}"),
            ("tokens", f"{run.counts.tokens:,}"),
        ]
    )


def resample_text(resample: Resample) -> str:
    """How like the vectors of some rows are to those that were embedded again."""
    rows = [("embedded", f"{resample.rows:,} rows again")]
    for name, cosines in resample.cosines.items():
        if len(cosines):
            rows.append((name, f"cosine min {cosines.min():.6f} mean {cosines.mean():.6f}"))
    return lines(rows)


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
        texts.append(f"{hit.score:.3f}  {hit.columns['id']}")
        for name, value in hit.columns.items():
            if name != "id" and value is not None:
                text = " ".join(str(value).split())
                texts.append(f"       {name}: {text[:MAX_SHOWN_CHARACTERS]}{'…' if len(text) > MAX_SHOWN_CHARACTERS else ''}")
    return "\n".join(texts)
