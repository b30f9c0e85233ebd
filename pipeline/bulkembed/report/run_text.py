"""A run as text: its plan, its progress and its summary."""

from __future__ import annotations

from bulkembed.dataset.paths import current_uri, rejects_folder
from bulkembed.records import Counts
from bulkembed.report.formatting import counted, duration, lines, size
from bulkembed.runs import calibration, guards
from bulkembed.runs.job import Job
from bulkembed.runs.night import NightCounts
from bulkembed.runs.plans import RunPlan
from bulkembed.runs.progress import Progress
from bulkembed.runs.row_types import json_text_columns
from bulkembed.runs.run import Summary
from bulkembed.source.place_columns import ROW, is_made_id

CAUSE_TEXT = {
    "engine": "their process ended",
    "memory": "memory ran out",
    "node": "their node was lost",
    "bystander": "another shard ended their process",
}


def plan_text(job: Job, plan: RunPlan) -> str:
    """What a run would do, and what is there already."""
    cfg, key = job.cfg, job.recipe.vector_key
    rejects_problem = plan.too_many_rejects(cfg, Counts())
    found = (
        f": {counted(len(plan.objects), 'object')}, {size(sum(item.size for item in plan.objects))}"
        if plan.repeated is None
        else ", not looked at"
    )
    rows = [
        ("source", f"{cfg.source_text}{found}"),
        *(("table", table) for table in plan.listing.tables),
        *(("left out", str(names)) for names in plan.left_out),
        ("output", f"{cfg.output} (fingerprint {'follows from the int8 ranges' if job.needs_int8_ranges else job.fingerprint})"),
        ("model", f"{job.model.name}, {job.model.pooling} pooling, at most {key.max_tokens:,} tokens"),
        *([("long ones", f"{key.long_documents}, above {key.chunk_tokens:,} tokens")] if key.long_documents != "truncate" else []),
        ("vectors", ", ".join(f"{form.dim} {form.dtype}" for form in job.recipe.row_schema.vectors)),
        *column_rows(job),
        ("parent", parent_text(plan)),
        *type_rows(job, plan),
        *night_rows(plan),
        *([("int8 ranges", calibration.outlook(job))] if job.int8_columns else []),
        *([("held back", plan.held_back)] if plan.held_back else []),
        *([("max_rejects", f"{rejects_problem}: a run ends at once")] if rejects_problem else []),
        *(("unreadable", f"{failure.where}: {failure.reason}") for failure in plan.failures),
    ]
    if job.model.native_dtype == "bfloat16" and key.engine_dtype == "float16":
        rows.append(("note", "this model was trained in bfloat16: its activations can overflow in float16"))
    untrained = [str(form.dim) for form in job.recipe.row_schema.vectors if not job.model.trained_for(form.dim)]
    if untrained:
        rows.append(("note", f"this model was not trained for vectors of {', '.join(untrained)} dimensions: expect worse hits"))
    return lines(rows)


def column_rows(job: Job) -> list[tuple[str, str]]:
    """What the configuration leaves to the source: which columns are kept, and what an id is."""
    rows = job.recipe.row_schema
    kept = [("kept", ", ".join(rows.keep_columns) or "no column")] if rows.keep == "all" else []
    if rows.id_column != ROW:
        return kept
    return [("ids", "object and row number" if is_made_id(job.carried.field("id")) else f"the column {ROW!r} of the source"), *kept]


def parent_text(plan: RunPlan) -> str:
    parent = plan.base.parent
    if parent is None:
        return "none: this is the first run of its line"
    damaged = f"; {len(plan.base.damaged):,} of its files are missing or damaged, and are made again" if plan.base.damaged else ""
    return f"snapshot {parent.number}: {counted(parent.documents, 'document')}{damaged}"


def type_rows(job: Job, plan: RunPlan) -> list[tuple[str, str]]:
    """What became of values that no type holds, of columns that objects lack, and of what is no Unicode."""
    texts, read = json_text_columns(job), plan.versions.looked_at()
    rows = [("JSON text", f"{', '.join(texts)}: no other type holds the values; column_types names one where you want it")] if texts else []
    for name in job.recipe.source_columns:
        lacking = sum(name in counts.absent for counts in read)
        rows += [("no column", f"{name} is not in {lacking:,} of {len(read):,} new objects, and null in their rows")] if lacking else []
    repaired = sum(counts.repaired for counts in read)
    return [*rows, *([("repaired", f"{repaired:,} new rows hold what is no Unicode: U+FFFD stands for it")] if repaired else [])]


def night_rows(plan: RunPlan) -> list[tuple[str, str]]:
    """What changes, once all of the source is read."""
    if plan.repeated is not None:
        return [("to do", f"nothing is left to do: a run of this run_key has published snapshot {plan.repeated.number}")]
    if plan.is_still:
        return [("to do", "nothing is left to do")]
    if plan.night is None:
        rows = (
            [("to do", f"embed at most {counted(plan.rows_pending, 'row')}, in {counted(len(plan.pending), 'shard')}")]
            if plan.pending
            else []
        )
        return [*rows, ("note", "a run reads the new objects first; then it knows which of their rows are new")]
    counts, rejects = plan.night.counts, scan_rejects(plan)
    rows = change_rows(counts)
    if rejects or counts.remembered:
        rows.append(("rejects", rejects_text(plan, rejects, counts.remembered)))
    work = f"{counted(plan.rows_pending, 'document')}, in {counted(len(plan.pending), 'shard')}" if plan.pending else "nothing"
    rows.append(("to do", f"embed {work}"))
    if plan.night.changes:
        rows.append(("rewritten", f"{counted(len(plan.night.changes), 'file')}, whose documents are not the same any more"))
    return rows


def change_rows(counts: NightCounts) -> list[tuple[str, str]]:
    """What is new since the parent, and which documents need no engine."""
    changes = [(counts.added, "added"), (counts.changed, "changed"), (counts.deleted, "deleted")]
    spared = [
        (counts.reused, "take a vector that is there"),
        (counts.duplicates, "have the text of another one and share its vector"),
        (counts.adopted, "are in files of this line already"),
    ]
    text = ", ".join(f"{count:,} {word}" for count, word in spared if count)
    none = "no document is added, changed or deleted"
    return [
        ("changes", "documents: " + ", ".join(f"{count:,} {word}" for count, word in changes) if any(n for n, _ in changes) else none),
        *([("no engine", f"documents: {text}")] if text else []),
    ]


def rejects_text(plan: RunPlan, rejects: int, remembered: int) -> str:
    """The rows that will be rejected. Their reasons are known of objects that came since the parent."""
    reasons = plan.versions.reasons()
    known = guards.in_brackets(reasons)
    where = " in new objects" if known and reasons.total() < rejects else ""
    before = f"; {remembered:,} have a text that was rejected before" if remembered else ""
    are = "is" if rejects == 1 else "are"
    return f"{counted(rejects, 'row')} {are} no document{where}{known}{before}"


def scan_rejects(plan: RunPlan) -> int:
    """Rows of the source that hold no document, as far as it is read."""
    return sum(item.rejects for item in plan.night.sources) if plan.night else 0


def progress_text(progress: Progress) -> str:
    """One line for a run that goes on."""
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
    """What a run has done. `seconds` is the time of the whole command, with planning and the start of Ray."""
    done, counts, key = summary.progress, summary.progress.counts, job.recipe.vector_key
    rows = change_rows(summary.night) if summary.plan.night and not summary.plan.is_still else []
    if done.shards:
        rows += [
            ("embedded", f"{counted(counts.documents, 'document')}, {counted(counts.tokens, 'token')}, {size(done.data_bytes)}"),
            ("speed", f"{done.tokens_per_second:,.0f} tokens/s while embedding, {duration(seconds)} in all"),
        ]
    if counts.truncated:
        rows.append(
            (
                "truncated",
                f"{counted(counts.truncated, 'document')}, at {key.max_tokens:,} tokens; about {counts.tokens_cut:,} tokens cut off",
            )
        )
    if counts.chunked:
        rows.append(
            ("chunked", f"{counted(counts.chunked, 'document')}, at {key.chunk_tokens:,} tokens; {counts.vectors:,} vectors in all")
        )
    if counts.repeated_ids:
        rows.append(("repeated", f"{counts.repeated_ids:,} rows repeat an id of their shard (kept)"))
    if counts.clipped:
        rows.append(("clipped", clipped_text(counts)))
    if warning := calibration.clipped_warning(counts):
        rows.append(("warning", warning))
    if job.recipe.row_schema.int8_ranges and not calibration.is_final(job):
        rows.append(
            ("int8 ranges", f"{calibration.outlook(job)}; a run with other or more rows measures new ranges and embeds all rows again")
        )
    if rejects := summary.snapshot.rejects if summary.snapshot else counts.rejects + scan_rejects(summary.plan):
        folders = dict.fromkeys(rejects_folder(job.cfg.output, name) for name in (job.line, job.fingerprint))
        rows.append(("rejected", f"{counted(rejects, 'row')} of the source, with reasons in {' and '.join(folders)}"))
    if counts.retries:
        rows.append(("retried", f"{counted(counts.retries, 'request')} to the store"))
    if done.lost:
        why = ", ".join(f"{count} as {CAUSE_TEXT[cause]}" for cause, count in done.lost.items())
        rows.append(("recovered", f"{done.lost.total()} attempts at shards were lost and made again: {why}"))
    rows += [("table", table) for table in summary.plan.listing.tables]
    rows += type_rows(job, summary.plan)
    rows += [("left out", str(names)) for names in summary.plan.left_out]
    rows += [("skipped", f"{failure.where}: {failure.reason.strip()}") for failure in summary.skipped]
    rows += [("failed", f"{failure.where}: {failure.reason.strip()}") for failure in summary.failures]
    return lines([*rows, *dataset_rows(job, summary)])


def dataset_rows(job: Job, summary: Summary) -> list[tuple[str, str]]:
    """What is published, whether readers get it, and how they would."""
    snapshot, output = summary.snapshot, job.cfg.output
    if snapshot is None:
        return [("dataset", "no snapshot: this run is incomplete")]
    trial = f", a trial of {counted(snapshot.limit, 'row')}" if snapshot.limit else ""
    current = summary.current
    if current is None or current.number == snapshot.number:
        said = "as before" if snapshot == summary.plan.base.parent else "which is current"
        dataset = ("dataset", f"snapshot {snapshot.number}: {counted(snapshot.documents, 'document')}{trial}, {said}")
        return [dataset, ("files", f"{snapshot.files:,}, listed in {current_uri(output)}")]
    switch = f"; `bulkembed publish --output {output} --snapshot {snapshot.number}` switches readers over"
    return [
        ("dataset", f"snapshot {snapshot.number}: {counted(snapshot.documents, 'document')}{trial}, not current"),
        ("files", f"{snapshot.files:,}, listed by `bulkembed files --output {output} --snapshot {snapshot.number}`"),
        ("current", f"snapshot {current.number}{', of the same line' if current.line == snapshot.line else switch}"),
    ]


def clipped_text(counts: Counts) -> str:
    """How many components of int8 vectors lie outside their int8 ranges."""
    return f"{counts.clipped:,} components of {counts.int8_components:,} of int8 vectors ({counts.clipped_share:.3%})"
