"""A dataset as text: its runs, rows that were embedded again, and hits of a search."""

from __future__ import annotations

from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.snapshots import newest_snapshot
from bulkembed.inspection.resample import Resample
from bulkembed.inspection.search import Hit
from bulkembed.records import Counts
from bulkembed.report.formatting import lines
from bulkembed.storage.store import Store

MAX_SHOWN_CHARACTERS = 160  # of a column of a hit


def status_text(store: Store, output: str) -> str:
    """Every run below an output: its counts, and which one is live."""
    newest = newest_snapshot(store, output)
    names = fingerprints(store, output)
    if not names:
        return f"{output}: no run has been here"
    texts = []
    for fingerprint in names:
        ledger = Ledger(store, output, fingerprint)
        receipts = list(ledger.read_receipts(ledger.done()))
        counts = sum((receipt.counts for receipt in receipts), Counts())
        live = newest is not None and newest.fingerprint == fingerprint
        rows = [
            ("run", fingerprint + (f" (live: snapshot {newest.number} of {newest.created})" if newest and live else "")),
            ("shards", f"{len(receipts):,}"),
            ("documents", f"{counts.documents:,}"),
            ("rejects", f"{counts.rejects:,}"),
            ("tokens", f"{counts.tokens:,}"),
        ]
        if receipts:
            provenance = receipts[0].provenance
            rows.insert(1, ("model", f"{provenance['model']}, {provenance['vectors']}"))
        texts.append(lines(rows))
    return "\n".join(texts)


def resample_text(resample: Resample) -> str:
    """How like the vectors of some rows are to those that were embedded again."""
    rows = [("embedded", f"{resample.rows:,} rows again")]
    for name, cosines in resample.cosines.items():
        if len(cosines):
            rows.append((name, f"cosine min {cosines.min():.6f} mean {cosines.mean():.6f}"))
    return lines(rows)


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
