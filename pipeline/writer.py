"""Columns and vectors -> the bytes of one Parquet file."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import schema

ROWS_PER_GROUP = 8192


def data_table(rows: pa.Table, vectors: dict[int, npt.NDArray[np.floating]], dims: tuple[int, ...], dtype: str) -> pa.Table:
    """Rows (id, kept columns, n_tokens, truncated, content_hash) and a vector column for each of `dims`."""
    carried = pa.schema([field for field in rows.schema if field.name not in ("n_tokens", "truncated", "content_hash")])
    wanted = schema.output_schema(carried, dims, dtype)
    columns: list[pa.Array | pa.ChunkedArray] = []
    named = {schema.vector_column(dim, dims): vectors[dim] for dim in dims}
    for field in wanted:
        if field.name in named:
            flat = pa.array(named[field.name].reshape(-1), field.type.value_type)
            columns.append(pa.FixedSizeListArray.from_arrays(flat, type=field.type))
        else:
            columns.append(rows[field.name])
    return pa.Table.from_arrays(columns, schema=wanted)


def parquet_bytes(table: pa.Table, provenance: dict[str, str]) -> bytes:
    """One Parquet file with `provenance` in its footer."""
    text = [field.name for field in table.schema if not pa.types.is_fixed_size_list(field.type)]
    sink = pa.BufferOutputStream()
    table = table.replace_schema_metadata({f"bulkembed.{key}": value for key, value in provenance.items()})
    # The bits of vectors neither repeat nor compress: dictionary, statistics and zstd only cost time on them.
    compression = {path: "zstd" if path.split(".")[0] in text else "none" for path in leaf_paths(table.schema)}
    pq.write_table(
        table,
        sink,
        row_group_size=ROWS_PER_GROUP,
        compression=compression,
        use_dictionary=[path for path in compression if compression[path] == "zstd"],
        write_statistics=text,
    )
    written: bytes = sink.getvalue().to_pybytes()
    return written


def leaf_paths(arrow: pa.Schema) -> list[str]:
    """Parquet's names of the columns: `embedding.list.element` for a list."""
    empty = pa.BufferOutputStream()
    pq.write_table(arrow.empty_table(), empty)
    parquet = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
    return [parquet.column(number).path for number in range(len(parquet.names))]
