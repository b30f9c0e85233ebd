"""The columns of a stored data file -> the columns of the run's data files, without the model."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from bulkembed import schema
from bulkembed.config.recipe import Recipe, forms_from
from bulkembed.dataset.parquet_file import footer_of, output_schema, schema_as_read
from bulkembed.dataset.vector_columns import stored_values, vector_array, vector_type
from bulkembed.errors import StorageError
from bulkembed.forms import vector_columns
from bulkembed.records import Counts
from bulkembed.runs.job import Job
from bulkembed.vectors import matryoshka, quantize


@dataclass(frozen=True)
class StoredColumns:
    """How a stored file gives the columns of the run's data files."""

    uri: str
    job: Job
    out: pa.Schema  # of the run's data files
    sources: dict[str, str]  # by vector column of the run: the stored column
    cut: frozenset[str]  # the vector columns of the run that are cut; the bits of the others are carried
    carried: pa.Schema  # the id and the kept columns, as a file of the run has them

    def table(self, stored: pa.Table, values: pa.Table | None) -> tuple[pa.Table, Counts]:
        """The run's rows of stored rows, and counts of int8 components that were quantized here.

        `values`: their ids and kept columns; None: the stored ones, which must have the run's types. Raises StorageError."""
        if values is None:
            require_fields(stored.schema, self.carried, self.uri)
        columns, counts = [], Counts()
        for item in self.out:
            if item.name in self.cut:
                column, counted = self.cut_column(stored, item)
                counts += counted
            elif values is not None and item.name in values.column_names:
                column = values[item.name]
            else:
                column = stored[self.sources.get(item.name, item.name)]
            # Parquet has no seconds: they are read as milliseconds, and no value changes here.
            columns.append(column if column.type == item.type else column.cast(item.type))
        return pa.Table.from_arrays(columns, schema=self.out), counts

    def cut_column(self, stored: pa.Table, item: pa.Field) -> tuple[pa.Array, Counts]:
        form = self.job.columns[item.name]
        vectors = stored_values(stored, self.sources[item.name])[:, : form.dim].astype("float32")
        if not matryoshka.usable_rows(vectors).all():
            raise StorageError(f"{self.uri}: the first {form.dim} components of a vector are zero; run without derive, which embeds it")
        encoded, clipped = quantize.encode_counting_clipped(vectors, form, self.job.int8_ranges.get(item.name))
        counts = Counts(int8_components=vectors.size, clipped=clipped) if form.dtype == "int8" else Counts()
        return vector_array(encoded, item.type), counts


def data_schema(job: Job) -> pa.Schema:
    """The schema of the job's data files."""
    chunks = schema.CHUNKS if job.recipe.vector_key.long_documents == "chunk" else ()
    return output_schema(pa.schema([*job.carried, *chunks, *schema.TAIL]), job.recipe.row_schema.vectors)


def stored_columns(stored: pa.Schema, uri: str, fingerprint: str, job: Job) -> StoredColumns:
    """How a file of this schema gives the job's columns. `fingerprint`: the folder that it lies in.

    Raises StorageError where its columns are not what they must be, or where a vector cannot be had without the model."""
    out = data_schema(job)
    as_read = schema_as_read(job.carried)
    own = {name: name for name in job.columns}
    if fingerprint == job.fingerprint:
        # A trial of this line may have seen other types. Its rows cannot stay then, but their vectors serve.
        require_fields(stored, schema_as_read(pa.schema([item for item in out if item.name not in job.carried.names])), uri)
        if stored.names != out.names:
            raise StorageError(f"{uri}: has the columns {', '.join(stored.names)}, and this run's files {', '.join(out.names)}")
        return StoredColumns(uri, job, out, own, frozenset(), as_read)
    old = recipe_in(stored, uri)
    if not job.recipe.derivable_from(old, job.cfg.derive):
        forms = ", ".join(map(str, old.row_schema.vectors))
        raise StorageError(f"{uri}: what it stores ({forms}) does not give the vectors of this run without the model")
    sources = forms_from(old, job.recipe, job.cfg.derive)
    old_forms = vector_columns(old.row_schema.vectors)
    vectors = [pa.field(name, vector_type(old_forms[name]), nullable=False) for name in sorted(set(sources.values()))]
    carried = [item for item in out if item.name not in {*job.carried.names, *own}]
    require_fields(stored, schema_as_read(pa.schema([*vectors, *carried])), uri)
    cut = frozenset(name for name, form in job.columns.items() if old_forms[sources[name]] != form)
    return StoredColumns(uri, job, out, sources, cut, as_read)


def require_fields(stored: pa.Schema, expected: pa.Schema, uri: str) -> None:
    """Raises StorageError unless the file has these columns with these types."""
    for item in expected:
        found = stored.field(item.name) if stored.names.count(item.name) == 1 else None
        if found is None or not found.equals(item):
            has = "missing" if found is None else described(found)
            raise StorageError(f"{uri}: its column {item.name} is {has}, and {described(item)} in this run's files; a run did not write it")


def described(item: pa.Field) -> str:
    return f"{item.type}{'' if item.nullable else ' not null'}"


def recipe_in(stored: pa.Schema, uri: str) -> Recipe:
    try:
        return Recipe.from_texts(footer_of(stored))
    except ValueError as error:
        raise StorageError(f"{uri}: its footer does not say how it was made: {error}") from error
