"""Embeds some rows of a finished dataset again, from the source, and compares the vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed import schema
from bulkembed.dataset import vector_columns
from bulkembed.dataset.file_keys import keys_of_table
from bulkembed.dataset.leftovers import NO_LEFTOVERS, Leftovers
from bulkembed.dataset.manifests import read_sources
from bulkembed.dataset.repair import NO_REPAIR, Repair
from bulkembed.dataset.row_groups import StoredFile, open_data_file
from bulkembed.dataset.snapshots import Snapshot, snapshot_files
from bulkembed.embedding import in_process
from bulkembed.embedding.embedder import Embedder
from bulkembed.inspection.origins import origins_of, shard_of_origins
from bulkembed.inspection.search import dataset_model
from bulkembed.runs import stages
from bulkembed.runs.job import Job
from bulkembed.runs.recall import recall_job
from bulkembed.shards import FileName, Part, Shard, ShardId
from bulkembed.source.objects import SourceObject
from bulkembed.source.places import listing_of
from bulkembed.storage.store import Store
from bulkembed.text import long_documents
from bulkembed.vectors import matryoshka, quantize

# Least cosine of a stored vector and the vector of the same row embedded again. A bit of a binary vector flips where a component is near 0.
MIN_COSINE = {"float32": 0.999, "float16": 0.999, "int8": 0.98, "binary": 0.85}
MAX_SAMPLE_SHARDS = 16  # each is read and tokenized whole


@dataclass(frozen=True)
class Resample:
    """Rows of a dataset beside the same rows embedded again."""

    rows: int
    cosines: dict[str, npt.NDArray[np.float64]]  # of each vector column
    problems: list[str]
    unknown: int = 0  # documents that no key file of the snapshot holds: their source rows are not known


@dataclass(frozen=True)
class Verification:
    """What a look at a whole dataset showed."""

    snapshot: Snapshot
    problems: list[str]  # none: the dataset is whole
    resample: Resample | None  # rows that were embedded again, where a sample was asked for
    repair: Repair = NO_REPAIR  # what a repair of the problems does, or has done
    hopeless: int = 0  # problems without a remedy
    leftovers: Leftovers = NO_LEFTOVERS


def resample_dataset(
    store: Store, output: str, snapshot: Snapshot, sources: Sequence[str], model: str | None, rows: int, seed: int
) -> Resample:
    """Loads the dataset's model into this process, and compares `rows` random rows of the snapshot with the same rows of the sources.

    `model`: where the model lies, if elsewhere than when the dataset was made. Raises SourceError, ModelError or ConfigError."""
    described = dataset_model(snapshot, model)
    job = recall_job(store, output, tuple(sources), snapshot, described)
    objects = listing_of(store.of_source(), sources, snapshot.exclude, asked=snapshot.format).objects
    with in_process.loaded(described, job.recipe.vector_key.max_tokens, job.engine) as embedder:
        return resample(job, snapshot, objects, embedder, rows, seed)


def resample(job: Job, snapshot: Snapshot, objects: list[SourceObject], embedder: Embedder, rows: int, seed: int) -> Resample:
    """Embeds `rows` random rows of the dataset again, from the source, and compares. They come from at most MAX_SAMPLE_SHARDS files."""
    random = np.random.default_rng(seed)
    names = sorted(random.permutation(snapshot_files(job.store, job.cfg.output, snapshot))[:MAX_SAMPLE_SHARDS].tolist())
    tables = [table_of(open_data_file(job.store, job.ledger.data_uri(name))) for name in names]
    ends = np.cumsum([0, *(table.num_rows for table in tables)])
    picked = np.sort(random.choice(int(ends[-1]), min(rows, int(ends[-1])), replace=False))
    known = {item.id: item for item in objects}
    parts = []
    for name, table, start, end in zip(names, tables, ends, ends[1:], strict=False):
        file_rows = picked[(picked >= start) & (picked < end)] - start
        if len(file_rows):
            parts.append(resample_file(job, snapshot, name, table, file_rows, known, embedder))
    return joined(job, parts)


def table_of(file: StoredFile) -> pa.Table:
    return pa.concat_tables([schema.empty_table(file.arrow), *file.groups()])


def joined(job: Job, parts: list[Resample]) -> Resample:
    """The rows of all files, with what is wrong with them together."""
    problems = [problem for part in parts for problem in part.problems]
    cosines = {name: np.concatenate([*(part.cosines[name] for part in parts if part.cosines), np.empty(0)]) for name in job.columns}
    for name, form in job.columns.items():
        low = int(np.count_nonzero(~(cosines[name] >= MIN_COSINE[form.dtype])))
        if low:
            problems.append(f"{low} vectors of column {name} are not those of their documents (cosine below {MIN_COSINE[form.dtype]})")
    return Resample(len(cosines["embedding"]), cosines, problems, sum(part.unknown for part in parts))


def resample_file(
    job: Job,
    snapshot: Snapshot,
    name: str,
    table: pa.Table,
    rows: npt.NDArray[np.int64],
    known: dict[str, SourceObject],
    embedder: Embedder,
) -> Resample:
    """These rows of a file beside the same rows embedded again. `known`: the objects of the source by their id."""
    stem, kind, *_ = FileName.parse(name)
    if not kind and stem.object_id in known:
        return compare_rows(job, shard_of(name, known[stem.object_id]), table, rows, embedder)
    documents = keys_of_table(table, ())
    chosen = np.unique(np.searchsorted(documents.keys.rows, rows, side="right") - 1)
    sources = list(read_sources(job.store, job.cfg.output, snapshot.manifest))
    origins = origins_of(job.store, job.cfg.output, snapshot.line, sources, documents.keys.take(chosen))
    there = [origin for origin in origins if origin.object_id in known]
    unknown = len(chosen) - len(origins)
    problems = []
    if len(there) < len(origins):
        gone = len(origins) - len(there)
        problems = [f"{name}: the source objects of {gone} documents are not there any more, or have changed: cannot be embedded again"]
    if not there:
        return Resample(0, {}, problems, unknown)
    firsts, lengths = documents.keys.rows[chosen], documents.lengths[chosen]
    taken = np.concatenate([np.arange(firsts[origin.document], firsts[origin.document] + lengths[origin.document]) for origin in there])
    shard = shard_of_origins(there, known, {source.object_id: source.rows for source in sources})
    found = compare_rows(job, shard, table.take(pa.array(taken)), np.flatnonzero(np.isin(taken, rows)), embedder)
    return replace(found, problems=[*problems, *found.problems], unknown=unknown)


def rows_with_contents_of(table: pa.Table, rows: pa.Table) -> npt.NDArray[np.int64]:
    """Which of the rows are of documents that the table has. The engine has rejected the others, by their content."""
    name = "document_hash" if "document_hash" in table.column_names else "content_hash"
    values = rows[name].cast(table.schema.field(name).type)
    return np.flatnonzero(pc.is_in(values, value_set=table[name].combine_chunks()).to_numpy())


def shard_of(shard_id: str, item: SourceObject) -> Shard:
    _, start, stop, total = ShardId.parse(shard_id)
    return Shard((Part(item.id, item.uri, item.relative_path, item.version, item.format, start, stop, total, offset=0, skip=start),))


def compare_rows(job: Job, shard: Shard, table: pa.Table, rows: npt.NDArray[np.int64], embedder: Embedder) -> Resample:
    """These rows of a shard's table beside the same rows embedded again."""
    prepared = stages.prepare(shard, job)
    keys = [name for name in ("id", "chunk_index", "document_hash", "n_tokens", "content_hash") if name in table.column_names]
    embedded = rows_with_contents_of(table, prepared.rows)
    if not prepared.rows.take(pa.array(embedded)).select(keys).cast(table.select(keys).schema).equals(table.select(keys)):
        return Resample(0, {}, [f"{shard.id}: its rows are not those that the source gives"])
    vectors = stages.full_vectors(long_documents.select_rows(prepared, embedded[rows]), job, embedder)
    int8_ranges, cosines = job.int8_ranges, {}
    for name, form in job.columns.items():
        ranges = int8_ranges.get(name)
        again = quantize.encode_vectors(vectors, form, ranges)
        stored = vector_columns.stored_values(table.take(pa.array(rows)), name)
        cosines[name] = matryoshka.cosines(quantize.decode_vectors(stored, form, ranges), quantize.decode_vectors(again, form, ranges))
    return Resample(len(rows), cosines, [])
