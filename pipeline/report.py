"""What people read: plan, progress, summary, status and hits as text."""

from __future__ import annotations

from collections.abc import Iterable

from pipeline import stages
from pipeline.ledger import Ledger, newest_snapshot
from pipeline.manifest import Plan
from pipeline.metrics import Progress
from pipeline.run import Summary
from pipeline.search import Hit
from pipeline.stages import Job
from pipeline.storage import Store, join


def lines(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<12} {value}" for name, value in rows)


def plan_text(job: Job, plan: Plan) -> str:
    cfg = job.cfg
    objects = len(plan.objects)
    rows = [
        ("source", f"{cfg.source}: {objects:,} objects, {size(sum(item.size for item in plan.objects))}"),
        ("output", f"{cfg.output} (fingerprint {job.fingerprint})"),
        ("model", f"{job.model.name}, {job.model.pooling} pooling, at most {cfg.max_tokens:,} tokens"),
        ("vectors", f"{', '.join(map(str, cfg.dims or ()))} dims, {cfg.dtype}"),
        ("done", f"{len(plan.done):,} shards, {plan.rows_done:,} rows"),
        ("to do", f"{len(plan.pending):,} shards, {plan.rows_pending:,} rows" if plan.pending else "nothing is left to do"),
        *(("unreadable", f"{failure.where}: {failure.reason}") for failure in plan.failures),
    ]
    if job.model.smallest_dim is None and min(cfg.dims or ()) < job.model.width:
        rows.append(("note", "this model does not say that it was trained for Matryoshka: expect the short vectors to be worse"))
    return lines(rows)


def estimate_text(job: Job, plan: Plan) -> str:
    """Of a dry run: tokens of everything, from those of the first pending shard."""
    if not plan.pending:
        return lines([("estimate", "nothing is left to do")])
    first = stages.prepare(plan.pending[0], job)
    tokens = int(first.tokens.offsets[-1])
    share = plan.rows_pending / plan.pending[0].rows
    bytes_per_row = sum(job.cfg.dims or ()) * (2 if job.cfg.dtype == "float16" else 4)
    return lines(
        [
            ("sample", f"{plan.pending[0].rows:,} rows: {tokens:,} tokens, {first.rejects.num_rows:,} rejects"),
            ("estimate", f"about {int(tokens * share):,} tokens, {size(plan.rows_pending * bytes_per_row)} of vectors; nothing written"),
        ]
    )


def progress_text(progress: Progress) -> str:
    eta = progress.eta_seconds
    return (
        f"{progress.shards:,}/{progress.shards_total:,} shards  {progress.documents:,} documents  "
        f"{progress.tokens:,} tokens  {progress.tokens_per_second:,.0f} tokens/s"
        + (f"  {progress.rejects:,} rejects" if progress.rejects else "")
        + (f"  {len(progress.failures)} failed" if progress.failures else "")
        + (f"  {duration(eta)} left" if eta is not None else "")
    )


def summary_text(job: Job, summary: Summary) -> str:
    done = summary.progress
    rows = []
    if summary.plan.pending:
        rows += [
            ("embedded", f"{done.documents:,} documents, {done.tokens:,} tokens, {size(done.data_bytes)}"),
            ("speed", f"{done.tokens_per_second:,.0f} tokens/s while embedding, {duration(done.seconds)} in all"),
        ]
    if done.truncated:
        rows.append(("truncated", f"{done.truncated:,} documents, at {job.cfg.max_tokens:,} tokens"))
    if done.repeated_ids:
        rows.append(("repeated", f"{done.repeated_ids:,} rows repeat an id of their shard (kept)"))
    if done.rejects:
        rows.append(("rejected", f"{done.rejects:,} rows, with reasons in {join(job.cfg.output, '_meta/rejects', job.fingerprint)}"))
    rows += [("failed", f"{failure.where}: {failure.reason.strip()}") for failure in summary.failures]
    if summary.snapshot is not None:
        rows.append(("dataset", f"snapshot {summary.snapshot.number}: {summary.snapshot.documents:,} documents"))
        rows.append(("parquet", join(job.cfg.output, "data", job.fingerprint, "*.parquet")))
    else:
        rows.append(("dataset", "no snapshot: this run is incomplete"))
    return lines(rows)


def status_text(store: Store, output: str) -> str:
    newest = newest_snapshot(store, output)
    names = [name.removesuffix(".json") for name in store.names(join(output, "_meta/runs"))]
    if not names:
        return f"{output}: no run has been here"
    texts = []
    for fingerprint in names:
        ledger = Ledger(store, output, fingerprint)
        receipts = list(ledger.read_receipts(ledger.done()))
        live = newest is not None and newest.fingerprint == fingerprint
        rows = [
            ("run", fingerprint + (f" (live: snapshot {newest.number} of {newest.created})" if newest and live else "")),
            ("shards", f"{len(receipts):,}"),
            ("documents", f"{sum(receipt.documents for receipt in receipts):,}"),
            ("rejects", f"{sum(receipt.rejects for receipt in receipts):,}"),
            ("tokens", f"{sum(receipt.tokens for receipt in receipts):,}"),
        ]
        if receipts:
            made = receipts[0].provenance
            rows.insert(1, ("model", f"{made['model']}, {made['dims']} dims, {made['dtype']}"))
        texts.append(lines(rows))
    return "\n".join(texts)


def hits_text(hits: list[Hit]) -> str:
    texts = []
    for hit in hits:
        texts.append(f"{hit.score:.3f}  {hit.columns['id']}")
        for name, value in hit.columns.items():
            if name != "id" and value is not None:
                text = " ".join(str(value).split())
                texts.append(f"       {name}: {text[:160]}{'…' if len(text) > 160 else ''}")
    return "\n".join(texts)


def size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if count < 1000 or unit == "TB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1000
    raise AssertionError("unreachable")


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
