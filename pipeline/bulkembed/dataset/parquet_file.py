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
    """The table of a data file. `rows`: id, kept columns, ..., content_hash. `vectors`: by column, in their storage dtype."""
    schema_out = output_schema(rows.schema, forms)
    columns: list[pa.Array | pa.ChunkedArray] = []
    for field in schema_out:
        if field.name in vectors:
            flat = pa.array(vectors[field.name].reshape(-1), field.type.value_type)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
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
    text = [field.name for field in table.schema if not pa.types.is_fixed_size_list(field.type)]
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({f"{PREFIX}{key}": value for key, value in footer.items()})
    # The bits of float vectors neither repeat nor compress, so that dictionary, statistics and zstd would only cost time. Parquet has
    # no type of one byte: without a dictionary, each int8 or byte of packed bits would take four bytes.
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


def leaf_paths(arrow: pa.Schema) -> list[str]:
    """The names that Parquet gives to the columns, such as `embedding.list.element` for a list."""
    empty = pa.BufferOutputStream()
    pq.write_table(schema.empty_table(arrow), empty)
    parquet = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet.names))]
