"""int8 ranges of a run: what they are measured on, and how long they are valid.

The ranges of int8 columns are part of a fingerprint. They are stored as numbered records under the fingerprint that the recipe has without
them. Ranges of MIN_VECTORS vectors are final. Ranges of fewer vectors are provisional: they are valid while the source has only rows that
they were measured on. With other rows, a run measures new ranges. It then has another fingerprint, and embeds the few existing rows again.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.config.recipe import Recipe
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import newest_of_line, snapshots
from bulkembed.errors import IncompleteError
from bulkembed.forms import vector_columns
from bulkembed.records import Counts, Failure, LostAttempt, Sampled, VectorForm
from bulkembed.runs.job import Job
from bulkembed.runs.progress import failures_text
from bulkembed.shards import Shard
from bulkembed.vectors import quantize

MIN_VECTORS = 2048  # least number of vectors that final ranges are measured on
SAMPLE_SHARDS = 64  # a sample is taken from so many shards; from more where these have too few rows
PIECE_ROWS = 256  # rows of a piece of a sample: engines share the pieces, and a document that ends a process is found sooner
TOKEN_BYTES = 4  # bytes of text of a token, about
MAX_CLIPPED = 0.01  # share of int8 components; ranges of MIN_VECTORS vectors of the same kind clip 0.001
ROWS_NAME = "int8_ranges_rows"  # key in footers and snapshots

Sample = Callable[[list[Shard], Job], Iterator[Sampled | Failure | LostAttempt]]


@dataclass(frozen=True)
class Int8Ranges:
    """What int8 columns are quantized with, and what it was measured on."""

    columns: dict[str, npt.NDArray[np.float32]]  # (2, dim): the least and the greatest value of each component
    vectors: int  # measured
    seen: int  # rows of the source looked at, rejects included
    objects: dict[str, int] = field(default_factory=dict)  # rows looked at, from the start of each source object; empty once final

    @property
    def is_final(self) -> bool:
        return self.vectors >= MIN_VECTORS

    @property
    def texts(self) -> dict[str, str]:
        """The ranges as footers, snapshots and the recipe have them."""
        return quantize.int8_ranges_to_text(self.columns) | {ROWS_NAME: str(self.vectors)}

    def are_valid_for(self, pending: list[Shard]) -> bool:
        """Whether they are valid for a source of which these rows, and all before them, are to be embedded."""
        return self.is_final or all(stop <= self.objects.get(object_id, 0) for object_id, stop in ends_of(pending).items())

    def to_record(self) -> dict[str, Any]:
        return {"rows": self.vectors, "seen": self.seen, "objects": self.objects, "int8_ranges": quantize.int8_ranges_to_text(self.columns)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Int8Ranges:
        return cls(quantize.int8_ranges_from_text(record["int8_ranges"]), record["rows"], record["seen"], record["objects"])


def newest(ledger: Ledger) -> tuple[int, Int8Ranges | None]:
    """Number and ranges of the newest record of a ledger; (0, None) where there is none."""
    return ledger.read_int8_ranges(Int8Ranges.from_record)


def newest_of_recipe(recipe: Recipe, ledger: Ledger) -> Int8Ranges | None:
    """The newest ranges of a recipe that has none yet; None where it has no int8 columns. A new line takes those of another line."""
    if not recipe.row_schema.has_int8:
        return None
    number, own = newest(ledger)
    return own if number else of_another_line(recipe, ledger)


def of_another_line(recipe: Recipe, ledger: Ledger) -> Int8Ranges | None:
    """The ranges of the newest line that has the same int8 forms of the same vectors, by the columns of this recipe."""
    for snapshot in reversed(snapshots(ledger.store, ledger.output)):
        try:
            other = Recipe.from_texts(snapshot.provenance)
        except ValueError:
            continue  # another version of bulkembed made it
        if other.line == recipe.line or not recipe.can_reuse_vectors(other):
            continue
        names = {form: name for name, form in int8_columns(other).items()}
        wanted = {name: names.get(form, "") for name, form in int8_columns(recipe).items()}
        _, ranges = newest(Ledger(ledger.store, ledger.output, other.line))
        if ranges is not None and ranges.columns.keys() >= set(wanted.values()):
            return replace(ranges, columns={name: ranges.columns[theirs] for name, theirs in wanted.items()})
    return None


def int8_columns(recipe: Recipe) -> dict[str, VectorForm]:
    return {name: form for name, form in vector_columns(recipe.row_schema.vectors).items() if form.dtype == "int8"}


def keep(job: Job) -> None:
    """Makes the ranges that a job has from another line those of its own line."""
    ledger = Ledger(job.store, job.cfg.output, job.line)
    if not job.int8_ranges or newest(ledger)[0]:
        return
    ranges = of_another_line(job.recipe, ledger)
    if ranges is not None and ranges.texts == dict(job.recipe.row_schema.int8_ranges):
        ledger.create_int8_ranges(1, ranges.to_record())


def with_int8_ranges(job: Job, int8_ranges: Int8Ranges) -> Job:
    """The job as it runs with these ranges."""
    return replace(job, recipe=job.recipe.with_int8_ranges(int8_ranges.texts))


def calibrate(job: Job, pending: list[Shard], sample: Sample) -> Job:
    """The job with valid ranges: those that another run has set meanwhile, else new ones. `pending`: all rows of the source.

    Raises IncompleteError where a part of the sample fails; no ranges are set then."""
    measured = measure(job, pending, sample)
    for _ in range(100):
        number, existing = newest(job.ledger)
        if existing is not None and existing.are_valid_for(pending):
            return with_int8_ranges(job, existing)
        job.ledger.create_int8_ranges(number + 1, measured.to_record())
    raise IncompleteError(f"{job.cfg.output}: 100 other runs took the next number of int8 ranges first; run again")


def measure(job: Job, pending: list[Shard], sample: Sample) -> Int8Ranges:
    """Ranges of at least MIN_VECTORS vectors, or of all there are."""
    parts: list[Sampled] = []
    taken: dict[int, int] = {}  # rows, by number of the shard
    seen = vectors = 0
    total = sum(shard.rows for shard in pending)
    while vectors < MIN_VECTORS and seen < total:
        rows = rows_needed(seen, vectors, expected_vectors(job, pending))
        upto = shares([shard.rows for shard in pending], taken, rows)
        parts += sample_parts(job, sample_pieces(pending, taken, upto), sample)
        taken = upto
        seen, vectors = sum(part.seen for part in parts), sum(part.vectors for part in parts)
    some = [part.int8_ranges for part in parts if part.vectors]
    columns = {name: column_ranges([ranges[name] for ranges in some], form.dim) for name, form in job.int8_columns.items()}
    return Int8Ranges(columns, vectors, seen, {} if vectors >= MIN_VECTORS else ends_of(pending))


def ends_of(shards: Iterable[Shard]) -> dict[str, int]:
    """Where the rows of each source object end in these shards, by object id."""
    ends: dict[str, int] = {}
    for part in (part for shard in shards for part in shard.parts):
        ends[part.object_id] = max(part.stop, ends.get(part.object_id, 0))
    return ends


def column_ranges(parts: list[npt.NDArray[np.float32]], dim: int) -> npt.NDArray[np.float32]:
    """Where every row is a reject, there is nothing to quantize."""
    return quantize.widen_int8_ranges(quantize.join_int8_ranges(parts) if parts else np.zeros((2, dim), np.float32))


def sample_parts(job: Job, pieces: list[Shard], sample: Sample) -> list[Sampled]:
    """What each piece shows of the ranges. Raises IncompleteError unless every piece was embedded."""
    outcomes = [outcome for outcome in sample(pieces, job) if not isinstance(outcome, LostAttempt)]  # a lost attempt is made again
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures:
        raise IncompleteError(
            f"int8 ranges: {len(failures)} of {len(pieces)} parts of the sample failed: {failures_text(failures)}; none are set, "
            "and nothing is embedded; repair or remove what failed, and run again"
        )
    parts = [outcome for outcome in outcomes if isinstance(outcome, Sampled)]
    if sum(part.seen for part in parts) != sum(piece.rows for piece in pieces):
        raise IncompleteError("int8 ranges: the sample was not looked at whole; none are set; run again")
    return parts


def rows_needed(seen: int, vectors: int, expected: float) -> int:
    """Number of rows of the source, in all, that give MIN_VECTORS vectors, judged by the rows seen so far. `expected`: vectors of a row.

    It asks for twice what is missing, so that one more try is enough. It never asks for more rows than were seen already, because rejects
    come in clusters."""
    if not seen:
        return ceil(MIN_VECTORS / expected)
    missing = ceil(2 * (MIN_VECTORS - vectors) * seen / max(1, vectors))
    return seen + min(seen, missing)


def expected_vectors(job: Job, pending: list[Shard]) -> float:
    """Vectors of a row, about. A row has more than one only where its windows are rows of their own."""
    if job.recipe.vector_key.long_documents != "chunk":
        return 1.0
    text_bytes, rows = sum(shard.text_bytes for shard in pending), sum(shard.rows for shard in pending)
    return max(1.0, text_bytes / rows / TOKEN_BYTES / job.recipe.vector_key.chunk_tokens)


def spread_sample(pending: list[Shard], rows: int) -> list[Shard]:
    """Pieces with at least `rows` rows, or all there are: the first rows of shards that are spread evenly over all shards."""
    return sample_pieces(pending, {}, shares([shard.rows for shard in pending], {}, rows))


def shares(sizes: Sequence[int], taken: Mapping[int, int], rows: int) -> dict[int, int]:
    """How many rows of each shard go into a sample of `rows` rows, by the shard's index. Shards that have enough rows give equally many.

    No shard gives fewer rows than it gave already (`taken`). A choice of twice as many shards contains the choice before."""
    count = SAMPLE_SHARDS
    while count < len(sizes) and sum(sizes[number] for number in spread(len(sizes), count)) < rows:
        count *= 2
    chosen = spread(len(sizes), count)

    def share(number: int, level: int) -> int:
        return max(taken.get(number, 0), min(sizes[number], level))

    level = bisect_left(range(max(sizes, default=0)), rows, key=lambda level: sum(share(number, level) for number in chosen))
    return {number: share(number, level) for number in chosen}


def spread(total: int, count: int) -> list[int]:
    """Up to `count` evenly spaced numbers below `total`."""
    return sorted({number * total // count for number in range(count)})


def sample_pieces(pending: list[Shard], taken: Mapping[int, int], upto: Mapping[int, int]) -> list[Shard]:
    """The rows that each shard gives beyond those that it gave already. `upto`: rows from its start, by the shard's index."""
    pieces = []
    for number, stop in upto.items():
        shard = pending[number]
        for start in range(taken.get(number, 0), stop, PIECE_ROWS):
            piece = shard.slice(start, min(stop, start + PIECE_ROWS))
            pieces.append(replace(piece, text_bytes=0))  # unknown size: no executor cuts it any further
    return pieces


def measured_rows(job: Job) -> int:
    """Vectors that the job's ranges were measured on."""
    return int(dict(job.recipe.row_schema.int8_ranges)[ROWS_NAME])


def is_final(job: Job) -> bool:
    """Whether the job's ranges are final."""
    return measured_rows(job) >= MIN_VECTORS


def outlook(job: Job) -> str:
    """What a run does about its int8 ranges, as text for people. Reads the ledger where the ranges are not known yet."""
    if not job.needs_int8_ranges:
        return f"{'final' if is_final(job) else 'provisional'}, from {measured_rows(job):,} rows"
    _, existing = newest(job.ledger)
    if existing is None or not existing.columns:
        return f"to be measured; provisional below {MIN_VECTORS:,} rows"
    old = newest_of_line(job.store, job.cfg.output, job.line, limited=job.cfg.limit is not None)
    rows = old.documents if old else 0
    return f"provisional, from {existing.vectors:,} rows: this run measures new ranges, and embeds the {rows:,} existing rows again"


def clipped_warning(counts: Counts) -> str | None:
    """A warning where so many components are clipped that the vectors are distorted; else None."""
    if counts.clipped_share <= MAX_CLIPPED:
        return None
    return (
        f"{counts.clipped_share:.1%} of the components of int8 vectors lie outside their ranges, so that these vectors are distorted: the "
        "documents are unlike those that the ranges were measured on; a run into another output measures new ones"
    )


def withdraw(job: Job) -> None:
    """Ends provisional ranges, so that new ones are measured. Documents that were rejects are not in the old measurement."""
    ledger = Ledger(job.store, job.cfg.output, job.line)
    number, existing = newest(ledger)
    if existing is not None and not existing.is_final:
        ledger.create_int8_ranges(number + 1, Int8Ranges({}, 0, 0).to_record())
