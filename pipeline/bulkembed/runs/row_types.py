"""The types of the id and the kept columns of a line.

The first whole snapshot of a line settles them. Until then, a run that finds values beyond them reads the source again in wider types.
After that, such values stop the run, so that all files of a line have one schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa

from bulkembed.config.recipe import Recipe
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import key_files
from bulkembed.dataset.paths import run_record_uri
from bulkembed.dataset.receipts import Ledger, carried_schema_of
from bulkembed.dataset.snapshots import View
from bulkembed.errors import ConfigError, StorageError
from bulkembed.runs.blame import blamed, blaming_output, blaming_source
from bulkembed.runs.job import Job, TypesState
from bulkembed.source import columns
from bulkembed.source.column_types import without_unknown_fields
from bulkembed.source.objects import SourceObject
from bulkembed.source.widening import Misfits, merged, remedy, source_fields, text_columns, widened

T = TypeVar("T")


class TypesTooNarrow(ConfigError):
    """Objects hold values that the types of the job do not hold."""

    def __init__(self, job: Job, misfits: Sequence[Misfits]) -> None:
        super().__init__(stop_text(job, misfits))
        self.misfits = misfits


def stop_text(job: Job, misfits: Sequence[Misfits]) -> str:
    first = misfits[0]
    rows = job.recipe.row_schema
    name, example = next(iter(first.examples.items()))
    field = source_fields(job.carried, rows)[name]
    entry = remedy(name, first.needed.get(name, field))
    more = f" (and {len(misfits) - 1:,} more objects)" if len(misfits) > 1 else ""
    return (
        f"column_types: {name!r} is {field.type} in the files of this line, which does not hold what is in {first.uri}{more}: {example}; "
        f"nothing was changed; set {entry}, which makes a new line with the vectors that are there (`bulkembed publish` switches "
        "readers over), or mend the source"
    )


def with_types(job: Job, work: Callable[[Job], T]) -> tuple[Job, T]:
    """What `work` returns, and the job with types that hold all values it has met. Raises TypesTooNarrow where they are settled."""
    tried: list[pa.Schema] = []
    while True:
        try:
            return job, work(job)
        except TypesTooNarrow as found:
            if job.types == "settled":
                raise
            tried.append(job.carried)
            job = replace(job, carried=widened(job.carried, found.misfits, job.recipe.row_schema, tried), types="new")


def write_types(job: Job) -> None:
    """Writes the run records of the job. Key files in other types are removed first: their hashes are those of other values.

    A trial leaves the record of its line as it is, since a whole run may be using it. Raises ConfigError or StorageError where the
    output cannot be written to."""
    line, is_trial = Ledger(job.store, job.cfg.output, job.line), job.cfg.limit is not None
    try:
        known = line.read_run_record() if job.types == "new" else None
        if known is not None and not is_trial:
            key_files.remove_all(job.store, job.cfg.output, job.line)
        stays = job.types in ("settled", "recorded") or (is_trial and known is not None)
        if job.fingerprint != job.line and not stays:
            line.write_run_record(job.carried, known["provenance"] if known else job.provenance, job.cfg.limit)
        if job.fingerprint != job.line or not (stays and is_trial):
            job.ledger.write_run_record(job.carried, job.provenance, job.cfg.limit)
    except (StorageError, FileNotFoundError) as error:
        raise blamed(f"output: cannot write to {job.cfg.output}", error) from error


def recorded(job: Job) -> Job:
    """The job once `write_types` has written its types."""
    return replace(job, types="recorded") if job.types in ("first", "new") and job.cfg.limit is None else job


def first_types(
    cfg: RunConfig, recipe: Recipe, view: View, objects: Sequence[SourceObject], has_record: bool
) -> tuple[pa.Schema, TypesState]:
    """The types to begin with: those of the line's whole snapshots, else those of the source.

    What an earlier run of the line has found is kept, so that its key files are of use. A trial has seen too little for that.

    Raises StorageError where the types of the line's snapshots are lost. Other types would give its rows other keys."""
    store, rows = view.store, recipe.row_schema
    record = record_of(Ledger(store, cfg.output, recipe.line)) if has_record else None
    known = record and carried_schema_of(record)
    whole = view.newest_of_line(recipe.line, limited=False)
    if known is None and whole is not None:
        where = run_record_uri(cfg.output, recipe.line)
        raise StorageError(f"{where}: missing, and snapshot {whole.number} was made in the types that it has; restore it from a backup")
    if known is not None and (not objects or whole is not None):
        return without_unknown_fields(known), "settled"
    with blaming_source():
        found = columns.carried_columns(store.of_source(), objects, recipe, cfg.source_text)
    if known is None or record is None:
        return found, "first"
    if record["limit"] is not None:
        return found, "new"
    both = merged(known, found, rows)
    return both, "recorded" if both.equals(known, check_metadata=True) else "new"


def record_of(ledger: Ledger) -> dict[str, Any] | None:
    with blaming_output(ledger.output):
        return ledger.read_run_record()


def json_text_columns(job: Job) -> list[str]:
    """The columns that are JSON text because no other type holds their values."""
    return text_columns(job.carried, job.recipe.row_schema)
