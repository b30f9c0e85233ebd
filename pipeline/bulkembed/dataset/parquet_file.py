"""Columns and vectors -> the bytes of one Parquet file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.dataset.vector_columns import vector_columns, vector_type
from bulkembed.records import VectorForm
from bulkembed.storage.retry import CORRUPT

ROWS_PER_GROUP = 8192
PREFIX = "bulkembed."  # of the names in a footer
# They may differ within a dataset: bulkembed is upgraded between two nights, and a model of the same files gets another commit or name.
INFORMATION = ("engine", "bulkembed", "model", "revision")


def data_table(rows: pa.Table, vectors: dict[str, npt.NDArray[np.generic]], forms: tuple[VectorForm, ...]) -> pa.Table:
    """Rows (id, kept columns, ..., content_hash) and the vector columns, by name, in their storage dtype."""
    wanted = output_schema(rows.schema, forms)
    columns: list[pa.Array | pa.ChunkedArray] = []
    for field in wanted:
        if field.name in vectors:
            flat = pa.array(vectors[field.name].reshape(-1), field.type.value_type)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        else:
            columns.append(rows[field.name])
    return pa.Table.from_arrays(columns, schema=wanted)


def output_schema(rows: pa.Schema, forms: tuple[VectorForm, ...]) -> pa.Schema:
    """The schema of a data file: id, kept columns, (CHUNKS,) vector columns, TAIL. `rows`: the same without vector columns."""
    tail = [field.name for field in schema.TAIL]
    front = [field for field in rows if field.name not in tail]
    return pa.schema(
        [*front, *(pa.field(name, vector_type(form), nullable=False) for name, form in vector_columns(forms).items()), *schema.TAIL]
    )


def parquet_bytes(table: pa.Table, footer: dict[str, str]) -> bytes:
    """One Parquet file with `footer` as its metadata."""
    text = [field.name for field in table.schema if not pa.types.is_fixed_size_list(field.type)]
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({f"{PREFIX}{key}": value for key, value in footer.items()})
    # The bits of float vectors neither repeat nor compress: dictionary, statistics and zstd only cost time on them. Parquet has
    # no type of one byte: but for a dictionary, int8 and packed bits would take four bytes each.
    compression = {path: "zstd" if path.split(".")[0] in text else "none" for path in leaf_paths(table.schema)}
    floats = {
        field.name for field in table.schema if pa.types.is_fixed_size_list(field.type) and pa.types.is_floating(field.type.value_type)
    }
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_PER_GROUP,
        compression=compression,
        use_dictionary=[path for path in compression if path.split(".")[0] not in floats],
        write_statistics=text,
    )
    written: bytes = sink.getvalue().to_pybytes()
    return written


def footer_of(arrow: pa.Schema) -> dict[str, str]:
    """What `parquet_bytes` wrote as the footer of a file with this schema."""
    found = {key.decode(errors="replace"): value.decode(errors="replace") for key, value in (arrow.metadata or {}).items()}
    return {key.removeprefix(PREFIX): value for key, value in found.items() if key.startswith(PREFIX)}


def alike(standing: bytes, data: bytes) -> bool:
    """Whether a file is whole and holds the rows of `data`, made for the same: its vectors may differ in bits."""
    try:
        old, new = schema.table_of(standing), schema.table_of(data)
    except CORRUPT:
        return False
    made, wanted = footer_of(old.schema), footer_of(new.schema)
    names = [field.name for field in new.schema if not pa.types.is_fixed_size_list(field.type)]
    return (
        {**made, **dict.fromkeys(INFORMATION)} == {**wanted, **dict.fromkeys(INFORMATION)}
        and old.schema.remove_metadata().equals(new.schema.remove_metadata())
        # As bytes: NaN is not equal to itself.
        and parquet_bytes(old.select(names), {}) == parquet_bytes(new.select(names), {})
    )


def leaf_paths(arrow: pa.Schema) -> list[str]:
    """Parquet's names of the columns: `embedding.list.element` for a list."""
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(arrow), empty)
    parquet = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet.names))]
