"""int8 ranges of a run: what they are measured on, and how long they hold.

A fingerprint holds the ranges of its int8 columns. They are kept under the key that the configuration has without them, numbered.
Ranges of MIN_VECTORS vectors are final. Ranges of fewer are provisional: they hold while every row of the source is one that they
were measured on. Else the run measures new ones, and has another fingerprint: the few rows there are made anew.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.config.recipe import Recipe
from bulkembed.dataset.receipts import Ledger
from bulkembed.errors import IncompleteError
from bulkembed.records import Counts, Failure, LostAttempt, Sampled, Shard, ShardId
from bulkembed.runs.job import Job
from bulkembed.runs.progress import failures_text
from bulkembed.vectors import quantize

MIN_VECTORS = 2048  # that final ranges are measured on
SAMPLE_SHARDS = 64  # that a sample is taken from; more where these have too few rows
PIECE_ROWS = 256  # of a sample: engines share it, and a document that ends a process is found sooner
TOKEN_BYTES = 4  # of text, about
MAX_CLIPPED = 0.01  # share of int8 components; ranges of MIN_VECTORS vectors of the same kind clip 0.001
ROWS_NAME = "int8_ranges_rows"  # in footers and snapshots

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
        """As they stand in footers and snapshots, and in the fingerprint."""
        return quantize.int8_ranges_to_text(self.columns) | {ROWS_NAME: str(self.vectors)}

    def hold(self, pending: list[Shard]) -> bool:
        """Whether they hold for a source of which these rows, and all before them, are to be embedded."""
        return self.is_final or all(shard.stop <= self.objects.get(shard.object_id, 0) for shard in pending)

    def to_record(self) -> dict[str, Any]:
        return {"rows": self.vectors, "seen": self.seen, "objects": self.objects, "ranges": quantize.int8_ranges_to_text(self.columns)}

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Int8Ranges:
        return cls(quantize.int8_ranges_from_text(record["ranges"]), record["rows"], record["seen"], record["objects"])


def newest(ledger: Ledger) -> tuple[int, Int8Ranges | None]:
    """Number and ranges of the newest of a key; (0, None) where there are none."""
    number, record = ledger.read_int8_ranges()
    return number, Int8Ranges.from_record(record) if record is not None else None


def newest_of_recipe(recipe: Recipe, ledger: Ledger) -> Int8Ranges | None:
    """The newest of a recipe without ranges; None where it has no int8 columns."""
    return newest(ledger)[1] if recipe.row_schema.has_int8 else None


def with_int8_ranges(job: Job, int8_ranges: Int8Ranges) -> Job:
    """The job as it runs with these ranges."""
    return replace(job, recipe=job.recipe.with_int8_ranges(int8_ranges.texts))


def calibrated(job: Job, pending: list[Shard], sample: Sample) -> Job:
    """The job with ranges that hold for what is pending, which is every row of the source: those that another run has set meanwhile, else
    new ones. Raises IncompleteError where a part of the sample fails: nothing is set then."""
    found = measured(job, pending, sample)
    for _ in range(100):
        number, standing = newest(job.ledger)
        if standing is not None and standing.hold(pending):
            return with_int8_ranges(job, standing)
        job.ledger.create_int8_ranges(number + 1, found.to_record())
    raise IncompleteError(f"{job.cfg.output}: 100 other runs took the next number of int8 ranges first; run again")


def measured(job: Job, pending: list[Shard], sample: Sample) -> Int8Ranges:
    """Ranges of at least MIN_VECTORS vectors, or of all there are."""
    parts: list[Sampled] = []
    taken: dict[int, int] = {}  # rows, by number of the shard
    seen = vectors = 0
    total = sum(shard.rows for shard in pending)
    while vectors < MIN_VECTORS and seen < total:
        wanted = shares([shard.rows for shard in pending], taken, rows_wanted(seen, vectors, expected_vectors(job, pending)))
        parts += sampled_parts(job, sample_pieces(pending, taken, wanted), sample)
        taken = wanted
        seen, vectors = sum(part.seen for part in parts), sum(part.vectors for part in parts)
    some = [part.int8_ranges for part in parts if part.vectors]
    columns = {name: column_ranges([ranges[name] for ranges in some], form.dim) for name, form in job.int8_columns.items()}
    objects = {} if vectors >= MIN_VECTORS else {shard.object_id: shard.stop for shard in pending}  # the last shard of an object counts
    return Int8Ranges(columns, vectors, seen, objects)


def column_ranges(parts: list[npt.NDArray[np.float32]], dim: int) -> npt.NDArray[np.float32]:
    """Where every row is a reject, there is nothing to quantize."""
    return quantize.widen_int8_ranges(quantize.join_int8_ranges(parts) if parts else np.zeros((2, dim), np.float32))


def sampled_parts(job: Job, pieces: list[Shard], sample: Sample) -> list[Sampled]:
    """What each piece shows. Raises IncompleteError unless all of them were looked at."""
    outcomes = [outcome for outcome in sample(pieces, job) if not isinstance(outcome, LostAttempt)]  # a lost attempt is made again
    failures = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    if failures:
        raise IncompleteError(
            f"int8 ranges: {len(failures)} of {len(pieces)} parts of the sample failed: {failures_text(failures)}; none are set, "
            "and nothing is embedded; repair or remove what failed, and run again"
        )
    found = [outcome for outcome in outcomes if isinstance(outcome, Sampled)]
    if sum(part.seen for part in found) != sum(piece.rows for piece in pieces):
        raise IncompleteError("int8 ranges: the sample was not looked at whole; none are set; run again")
    return found


def rows_wanted(seen: int, vectors: int, expected: float) -> int:
    """Of the source, in all: what MIN_VECTORS vectors take by what was seen so far, at first by what is expected of a row.

    Asks for twice what is missing, so that one more try does; never for more than was seen already, since rejects come in clusters."""
    if not seen:
        return ceil(MIN_VECTORS / expected)
    missing = ceil(2 * (MIN_VECTORS - vectors) * seen / max(1, vectors))
    return seen + min(seen, missing)


def expected_vectors(job: Job, pending: list[Shard]) -> float:
    """Of a row, about: more than one only where its windows are rows of their own."""
    if job.recipe.vector_key.long_documents != "chunk":
        return 1.0
    text_bytes, rows = sum(shard.text_bytes for shard in pending), sum(shard.rows for shard in pending)
    return max(1.0, text_bytes / rows / TOKEN_BYTES / job.recipe.vector_key.chunk_tokens)


def sample_of(pending: list[Shard], rows: int) -> list[Shard]:
    """Pieces with at least so many rows, or all there are: the first rows of shards that are spread evenly over all."""
    return sample_pieces(pending, {}, shares([shard.rows for shard in pending], {}, rows))


def shares(sizes: Sequence[int], taken: Mapping[int, int], rows: int) -> dict[int, int]:
    """By number of the shard: how many of its rows go into a sample of `rows` in all, the same of each as far as it has them.

    None gets less than it gave already (`taken`). Twice as many shards hold all the shards that half as many did."""
    count = SAMPLE_SHARDS
    while count < len(sizes) and sum(sizes[number] for number in spread(len(sizes), count)) < rows:
        count *= 2
    chosen = spread(len(sizes), count)

    def share(number: int, level: int) -> int:
        return max(taken.get(number, 0), min(sizes[number], level))

    level = bisect_left(range(max(sizes, default=0)), rows, key=lambda level: sum(share(number, level) for number in chosen))
    return {number: share(number, level) for number in chosen}


def spread(total: int, count: int) -> list[int]:
    """Up to `count` numbers below `total`, evenly."""
    return sorted({number * total // count for number in range(count)})


def sample_pieces(pending: list[Shard], taken: Mapping[int, int], wanted: Mapping[int, int]) -> list[Shard]:
    """The rows that each shard gives beyond those it gave already."""
    pieces = []
    for number, stop in wanted.items():
        shard = pending[number]
        for start in range(taken.get(number, 0), stop, PIECE_ROWS):
            piece = replace(shard, start=shard.start + start, stop=shard.start + min(stop, start + PIECE_ROWS), skip=shard.skip + start)
            pieces.append(replace(piece, text_bytes=0))  # of unknown size: not worth cutting any further
    return pieces


def measured_rows(job: Job) -> int:
    """Vectors that the job's ranges were measured on."""
    return int(dict(job.recipe.row_schema.int8_ranges)[ROWS_NAME])


def final(job: Job) -> bool:
    """Whether the job's ranges are."""
    return measured_rows(job) >= MIN_VECTORS


def outlook(job: Job) -> str:
    """What a run does about its int8 ranges, for people; reads the ledger where they are not known yet."""
    if not job.needs_int8_ranges:
        return f"{'final' if final(job) else 'provisional'}, from {measured_rows(job):,} rows"
    _, standing = newest(job.ledger)
    if standing is None or not standing.columns:
        return f"to be measured; provisional below {MIN_VECTORS:,} rows"
    old = Ledger(job.store, job.cfg.output, job.recipe.with_int8_ranges(standing.texts).fingerprint)
    rows = sum(ShardId.parse(shard_id).rows for shard_id in old.done())
    return f"provisional, from {standing.vectors:,} rows: this run measures new ones, and makes the {rows:,} rows there are anew"


def clipped_warning(counts: Counts) -> str | None:
    """Said where so much is clipped that the vectors are distorted."""
    if counts.clipped_share <= MAX_CLIPPED:
        return None
    return (
        f"{counts.clipped_share:.1%} of the components of int8 vectors lie outside their ranges, so that these vectors are distorted: the "
        "documents are unlike those that the ranges were measured on; a run into another output measures new ones"
    )


def withdraw(job: Job) -> None:
    """Ends provisional ranges, so that the next run measures new ones: rejects that come good were not measured."""
    if not job.recipe.row_schema.int8_ranges or final(job):
        return
    ledger = Ledger(job.store, job.cfg.output, job.recipe.with_int8_ranges({}).fingerprint)
    ledger.create_int8_ranges(newest(ledger)[0] + 1, Int8Ranges({}, 0, 0).to_record())
