"""What a vector takes in a file, and that it comes back as it was."""

from __future__ import annotations

import io

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed import schema
from bulkembed.dataset import parquet_file
from bulkembed.records import Dtype, VectorForm
from bulkembed.vectors import quantize

ROWS, DIM = 2000, 256


@pytest.mark.parametrize(("dtype", "bytes_of_one"), [("float32", 4 * DIM), ("float16", 2 * DIM), ("int8", DIM), ("binary", DIM // 8)])
def test_a_vector_takes_the_bytes_of_its_numbers(dtype: Dtype, bytes_of_one: int, tmp_path_factory: pytest.TempPathFactory) -> None:
    vectors = np.random.default_rng(0).normal(size=(ROWS, DIM)).astype(np.float32)
    form = VectorForm(DIM, dtype)
    values = quantize.encode_vectors(vectors, form, quantize.measure_int8_ranges(vectors, DIM))
    rows = pa.table({"id": range(ROWS), "n_tokens": pa.array([1] * ROWS, pa.int32()), "truncated": [False] * ROWS})
    rows = rows.append_column("content_hash", pa.array([bytes(16)] * ROWS, pa.binary(16)))
    data = parquet_file.parquet_bytes(parquet_file.data_table(rows, {"embedding": values}, (form,)), {})
    footer = pq.ParquetFile(io.BytesIO(data)).metadata.row_group(0)
    leaf = next(footer.column(n) for n in range(footer.num_columns) if footer.column(n).path_in_schema.startswith("embedding"))
    assert leaf.total_compressed_size <= ROWS * (bytes_of_one + 6) + 4096  # a few bytes for where each list ends; a dictionary
    read = schema.table_of(data)["embedding"].combine_chunks().flatten().to_numpy().reshape(ROWS, -1)
    np.testing.assert_array_equal(read, values)
    path = tmp_path_factory.mktemp("writer") / "a.parquet"
    path.write_bytes(data)
    found = duckdb.connect().sql("select sum(embedding[1]) from read_parquet(?)", params=[str(path)])
    assert found.fetchall()[0][0] == pytest.approx(values[:, 0].astype(np.float64).sum())
