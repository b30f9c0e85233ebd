"""What people read: plan, progress, summary, status and hits as text."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from bulkembed.config.recipe import VectorKey
from bulkembed.dataset.paths import current_uri, rejects_folder
from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.dataset.snapshots import newest_snapshot
from bulkembed.embedding.preflight import Check
from bulkembed.errors import BulkembedError
from bulkembed.inspection.resample import Resample
from bulkembed.inspection.search import Hit
from bulkembed.records import Counts, Model
from bulkembed.runs import calibration
from bulkembed.runs.estimate import Interval, Prices, cheaper, estimate
from bulkembed.runs.job import Job
from bulkembed.runs.progress import Progress
from bulkembed.runs.publication import too_many_rejects
from bulkembed.runs.run import Summary
from bulkembed.source.planning import Plan
from bulkembed.storage.store import Store
from bulkembed.tuning.search import Trial

LOSS_TEXT = {
    "engine": "by the end of a process",
    "memory": "for want of memory",
    "node": "with a node",
    "bystander": "beside another shard",
}
BITS = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}


def lines(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<12} {value}" for name, value in rows)


def plan_text(job: Job, plan: Plan) -> str:
    cfg, key = job.cfg, job.recipe.vector_key
    objects = len(plan.objects)
    rejected = too_many_rejects(job, plan, plan.done_counts)
    rows = [
        ("source", f"{cfg.source}: {objects:,} objects, {size(sum(item.size for item in plan.objects))}"),
        *(("left out", str(names)) for names in plan.left_out),
        ("output", f"{cfg.output} (fingerprint {'follows from the int8 ranges' if job.needs_int8_ranges else job.fingerprint})"),
        ("model", f"{job.model.name}, {job.model.pooling} pooling, at most {key.max_tokens:,} tokens"),
        ("vectors", ", ".join(f"{form.dim} {form.dtype}" for form in job.recipe.row_schema.vectors)),
        ("done", f"{len(plan.done):,} shards, {plan.rows_done:,} rows"),
        ("to do", f"{len(plan.pending):,} shards, {plan.rows_pending:,} rows" if plan.pending else "nothing is left to do"),
        *([("int8 ranges", calibration.outlook(job))] if job.int8_columns else []),
        *([("held back", plan.held_back)] if plan.held_back else []),
        *([("max_rejects", f"{rejected}: a run ends at once")] if rejected else []),
        *(("unreadable", f"{failure.where}: {failure.reason}") for failure in plan.failures),
    ]
    if key.long_documents != "truncate":
        rows.insert(4 + len(plan.left_out), ("long ones", f"{key.long_documents}, above {key.chunk_tokens:,} tokens"))
    if job.model.native_dtype == "bfloat16" and key.engine_dtype == "float16":
        rows.append(("note", "this model was trained in bfloat16: its activations can overflow in float16"))
    untrained = [str(form.dim) for form in job.recipe.row_schema.vectors if not job.model.trained_for(form.dim)]
    if untrained:
        rows.append(("note", f"this model was not trained for vectors of {', '.join(untrained)} dimensions: expect worse hits"))
    return lines(rows)


def estimate_text(job: Job, plan: Plan, prices: Prices) -> str:
    """What is to come: tokens, the size of the vectors, and with `prices` hours and money. Reads a sample of the source."""
    if not plan.pending:
        return lines([("estimate", "nothing is left to do")])
    try:
        found = estimate(job, plan.pending)
    except BulkembedError as error:
        return lines([("estimate", f"unknown: {error}")])
    vectors = size(found.vectors * sum(form.dim * BITS[form.dtype] // 8 for form in job.recipe.row_schema.vectors))
    how, where = ("about", f"{found.places} places all over the source") if found.places else ("exactly", "all of it")
    rows = [
        ("sample", f"{found.rows_read:,} of {plan.rows_pending:,} rows, {where}"),
        (
            "estimate",
            f"{how} {amount(found.tokens, whole)} tokens, {vectors} of vectors; nothing written",
        ),
    ]
    if found.rejects:
        rows.append(("rejects", f"about {round(found.rejects):,} rows" if found.places else f"{round(found.rejects):,} rows"))
    if found.unread:
        rows.append(("unread", f"{len(found.unread)} parts of the sample, left out: {found.unread[0]}"))
    return lines(rows + price_rows(found.tokens, prices))


def price_rows(tokens: Interval, prices: Prices) -> list[tuple[str, str]]:
    rows = []
    here, there = prices.cluster(tokens), prices.api(tokens)
    seconds = prices.seconds(tokens)
    if seconds is not None:
        rows.append(("time", f"{amount(seconds, duration)} at {prices.tokens_per_second:,.0f} tokens/s"))
    if here is not None:
        rows.append(("cost", f"{amount(here, money)} at {prices.price_per_hour:,g} an hour"))
    if there is not None:
        verdict = "" if here is None else f": {cheaper(here, there)}"
        rows.append(("api", f"{amount(there, money)} at {prices.api_price:,g} a million tokens{verdict}"))
    return rows


def amount(found: Interval, text: Callable[[float], str]) -> str:
    """`12 (95 %: 10 to 14)`, or `12` where that is known."""
    bounds = f" (95 %: {text(found.low)} to {text(found.high)})" if found.low < found.high else ""
    return f"{text(found.best)}{bounds}"


def whole(number: float) -> str:
    return f"{round(number):,}"


def money(number: float) -> str:
    return f"{number:,.2f}" if number >= 1 else f"{number:.2g}"


def progress_text(progress: Progress) -> str:
    eta = progress.eta_seconds
    return (
        f"{progress.shards:,}/{max(progress.shards, progress.shards_total):,} shards  {progress.counts.documents:,} documents  "
        f"{progress.counts.tokens:,} tokens  {progress.tokens_per_second:,.0f} tokens/s"
        + (f"  {progress.counts.rejects:,} rejects" if progress.counts.rejects else "")
        + (f"  {progress.lost.total()} attempts lost" if progress.lost else "")
        + (f"  {len(progress.failures)} failed" if progress.failures else "")
        + (f"  {duration(eta)} left" if eta is not None else "")
    )


def summary_text(job: Job, summary: Summary, seconds: float) -> str:
    """`seconds`: of the whole command, planning and Ray's start too."""
    done, counts, key = summary.progress, summary.progress.counts, job.recipe.vector_key
    rows = []
    if summary.plan.pending:
        rows += [
            ("embedded", f"{counts.documents:,} documents, {counts.tokens:,} tokens, {size(done.data_bytes)}"),
            ("speed", f"{done.tokens_per_second:,.0f} tokens/s while embedding, {duration(seconds)} in all"),
        ]
    if counts.truncated:
        rows.append(
            ("truncated", f"{counts.truncated:,} documents, at {key.max_tokens:,} tokens; about {counts.tokens_cut:,} tokens cut off")
        )
    if counts.chunked:
        rows.append(("chunked", f"{counts.chunked:,} documents, at {key.chunk_tokens:,} tokens; {counts.vectors:,} vectors in all"))
    if counts.repeated_ids:
        rows.append(("repeated", f"{counts.repeated_ids:,} rows repeat an id of their shard (kept)"))
    if counts.clipped:
        rows.append(("clipped", clipped_text(counts)))
    if warning := calibration.clipped_warning(counts):
        rows.append(("warning", warning))
    if job.recipe.row_schema.int8_ranges and not calibration.final(job):
        rows.append(("int8 ranges", f"{calibration.outlook(job)}; a run with other or more rows measures new ones, and makes all anew"))
    if counts.rejects:
        rows.append(("rejected", f"{counts.rejects:,} rows, with reasons in {rejects_folder(job.cfg.output, job.fingerprint)}"))
    if counts.retries:
        rows.append(("retried", f"{counts.retries:,} requests to the store"))
    if done.lost:
        why = ", ".join(f"{count} {LOSS_TEXT[cause]}" for cause, count in done.lost.items())
        rows.append(("recovered", f"{done.lost.total()} attempts at shards were lost and made again: {why}"))
    rows += [("left out", str(names)) for names in summary.plan.left_out]
    rows += [("failed", f"{failure.where}: {failure.reason.strip()}") for failure in summary.failures]
    if summary.snapshot is not None:
        rows.append(("dataset", f"snapshot {summary.snapshot.number}: {summary.snapshot.documents:,} documents"))
        rows.append(("files", f"{len(summary.snapshot.shards):,}, listed in {current_uri(job.cfg.output)}"))
    else:
        rows.append(("dataset", "no snapshot: this run is incomplete"))
    return lines(rows)


def clipped_text(counts: Counts) -> str:
    return f"{counts.clipped:,} components of {counts.int8_components:,} of int8 vectors ({counts.clipped_share:.3%})"


def status_text(store: Store, output: str) -> str:
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
            made = receipts[0].provenance
            rows.insert(1, ("model", f"{made['model']}, {made['vectors']}"))
        texts.append(lines(rows))
    return "\n".join(texts)


def resample_text(found: Resample) -> str:
    rows = [("embedded", f"{found.rows:,} rows again")]
    for name, cosines in found.cosines.items():
        if len(cosines):
            rows.append((name, f"cosine min {cosines.min():.6f} mean {cosines.mean():.6f}"))
    return lines(rows)


def checks_text(model: Model, key: VectorKey, engine: str, checks: list[Check]) -> str:
    """A table: passed or not, name, what was found."""
    head = f"{model.name}: {model.pooling} pooling, {model.width} dims, {engine} in {key.engine_dtype}, at most {key.max_tokens:,} tokens"
    wide = max(len(each.name) for each in checks)
    return "\n".join([head, *(f"  {'ok  ' if each.passed else 'FAIL'}  {each.name:<{wide}}  {each.detail}" for each in checks)])


def trial_text(trial: Trial, base: float) -> str:
    if not trial.rate:
        return f"  {'failed':>9}        {trial.name}: {trial.problem}"
    return f"  {trial.rate:>9,.0f}  {trial.rate / base:>5.2f}  {trial.name}"


def tuned_text(trials: list[Trial], first: Trial, best: Trial, untried: list[str]) -> str:
    found = f"fastest: {best.name}, {best.rate:,.0f} tokens/s ({best.rate / first.rate:.2f} of those as configured)"
    if "dtype" in best.changes:
        found += "\nanother dtype makes other vectors: what is done already would be embedded anew"
    if untried:
        longest = max(trial.seconds for trial in trials)
        found += f"\nnot tried for want of time (a setting took up to {longest:.0f} s; --budget gives more): {', '.join(untried)}"
    return found


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
