"""Columns and vectors -> the bytes of one Parquet file."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset.vector_columns import stored_values, vector_array, vector_type
from bulkembed.forms import vector_columns
from bulkembed.records import VectorForm
from bulkembed.storage.faults import CORRUPT

ROWS_PER_GROUP = 8192
PREFIX = "bulkembed."  # of the names in a footer
# They may differ within a dataset: bulkembed is upgraded between two nights, and a model of the same files gets another commit or name.
INFORMATION = ("engine", "bulkembed", "model", "revision")


def data_table(rows: pa.Table, vectors: dict[str, npt.NDArray[np.generic]], forms: tuple[VectorForm, ...]) -> pa.Table:
    """The table of a data file. `rows`: id, kept columns, ..., content_hash. `vectors`: by column, in their storage dtype."""
    schema_out = output_schema(rows.schema, forms)
    columns: list[pa.Array | pa.ChunkedArray] = []
    for field in schema_out:
        if field.name in vectors:
            columns.append(vector_array(vectors[field.name], field.type))
        else:
            columns.append(rows[field.name])
    return pa.Table.from_arrays(columns, schema=schema_out)


def output_schema(rows: pa.Schema, forms: tuple[VectorForm, ...]) -> pa.Schema:
    """The schema of a data file: id, kept columns, (CHUNKS,) vector columns, TAIL. `rows`: the same without vector columns."""
    tail = [field.name for field in schema.TAIL]
    front = [field for field in rows if field.name not in tail]
    return pa.schema(
        [*front, *(pa.field(name, vector_type(form), nullable=False) for name, form in vector_columns(forms).items()), *schema.TAIL]
    )


def parquet_bytes(table: pa.Table, footer: dict[str, str]) -> bytes:
    """One Parquet file with `footer` as its metadata."""
    return stream_bytes([table], table.schema, footer)


def stream_bytes(tables: Iterable[pa.Table], arrow: pa.Schema, footer: dict[str, str]) -> bytes:
    """One Parquet file of the rows of `tables`, which have the schema `arrow`. In memory are the file and the rows of few row groups."""
    sink = io.BytesIO()
    described = arrow.with_metadata({f"{PREFIX}{key}": value for key, value in footer.items()})
    with pq.ParquetWriter(sink, described, **settings_of(arrow)) as writer:
        for group in regrouped(tables):
            writer.write_table(group, row_group_size=ROWS_PER_GROUP)
    return sink.getvalue()


def settings_of(arrow: pa.Schema) -> dict[str, Any]:
    """How columns are written.

    The bits of float vectors neither repeat nor compress, so that dictionary, statistics and zstd would only cost time. Parquet has
    no type of one byte: without a dictionary, each int8 or byte of packed bits would take four bytes."""
    text = [field.name for field in arrow if not pa.types.is_fixed_size_list(field.type)]
    compression = {path: "zstd" if path.split(".")[0] in text else "none" for path in leaf_paths(arrow)}
    floats = {field.name for field in arrow if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type)}
    return {
        "compression": compression,
        "use_dictionary": [path for path in compression if path.split(".")[0] not in floats],
        "write_statistics": text,
        "write_page_checksum": True,  # a rewrite would carry a damaged vector into a new file, with a hash of its own
    }


def regrouped(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows as tables of ROWS_PER_GROUP rows each, but the last."""
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        waiting.append(table)
        rows += table.num_rows
        while rows >= ROWS_PER_GROUP:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROWS_PER_GROUP)
            waiting, rows = [joined.slice(ROWS_PER_GROUP)], rows - ROWS_PER_GROUP
    if rows:
        yield pa.concat_tables(waiting)


def footer_of(arrow: pa.Schema) -> dict[str, str]:
    """The footer that `parquet_bytes` wrote into a file with this schema."""
    texts = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in (arrow.metadata or {}).items()}
    return {key.removeprefix(PREFIX): value for key, value in texts.items() if key.startswith(PREFIX)}


def alike(standing: bytes, data: bytes) -> bool:
    """Whether the file that stands there is whole, and holds the same rows as `data` under the same recipe. Vectors may differ in bits."""
    try:
        old, new = schema.table_of(standing), schema.table_of(data)
    except CORRUPT:
        return False
    old_footer, new_footer = footer_of(old.schema), footer_of(new.schema)
    names = [field.name for field in new.schema if not pa.types.is_fixed_size_list(field.type)]
    return (
        {**old_footer, **dict.fromkeys(INFORMATION)} == {**new_footer, **dict.fromkeys(INFORMATION)}
        and old.schema.remove_metadata().equals(new.schema.remove_metadata())
        # As bytes: NaN is not equal to itself.
        and parquet_bytes(old.select(names), {}) == parquet_bytes(new.select(names), {})
    )


def identical(standing: bytes, data: bytes) -> bool:
    """As `alike`, and the vectors have the same bits."""
    if standing == data:
        return True
    if not alike(standing, data):
        return False
    old, new = schema.table_of(standing), schema.table_of(data)
    names = [field.name for field in new.schema if pa.types.is_fixed_size_list(field.type)]
    return all(stored_values(old, name).tobytes() == stored_values(new, name).tobytes() for name in names)


def leaf_paths(arrow: pa.Schema) -> list[str]:
    """The names that Parquet gives to the columns, such as `embedding.list.element` for a list."""
    parquet = empty_file(arrow).schema
    return [parquet.column(number).path for number in range(len(parquet.names))]


def schema_as_read(arrow: pa.Schema) -> pa.Schema:
    """The schema that a file of these columns has when it is read. Parquet has no seconds, for example: they come back as milliseconds."""
    return empty_file(arrow).schema_arrow


def empty_file(arrow: pa.Schema) -> pq.ParquetFile:
    written = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(arrow), written)
    return pq.ParquetFile(pa.BufferReader(written.getvalue()))
