"""The row `formats`: Parquet encodings and codecs of vector columns, by size and by the time to write and read them.

Vectors come from MiniLM's vectors of demo documents, since noise compresses otherwise. MB are of the vectors as they are in
memory, so that rates of one dtype compare. `..._over` is the ratio to the encoding that the job writes.
"""

from __future__ import annotations

import random
import shutil
import statistics
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import typer

from bulkembed.config.sections import EngineConfig
from bulkembed.dataset.parquet_file import ROWS_PER_GROUP
from bulkembed.embedding import in_process
from bulkembed.embedding.model_files import describe
from bulkembed.records import parse_forms
from bulkembed.runs.job import load_tokenizer
from bulkembed.vectors import matryoshka, quantize
from bulkembed.vectors.matryoshka import Vectors
from scripts.benchmarks.material import SHAPES, WORK, Row, engine_dtype, model_folder
from scripts.benchmarks.measuring import seconds_of
from scripts.samples import demo_corpus

LEAF = "embedding.list.element"
FLOATS = ("PLAIN", "BYTE_STREAM_SPLIT")
# Parquet has no type of one byte: PLAIN stores int8 and packed bits as INT32, four bytes each.
BYTES = ("DICTIONARY", "PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED")
ENCODINGS = {"float32": FLOATS, "float16": FLOATS, "int8": BYTES, "binary": BYTES}
CODECS: tuple[tuple[str, int | None], ...] = (("none", None), ("snappy", None), ("lz4", None), ("zstd", 1), ("zstd", 3), ("zstd", 9))
ROUNDS = 3


def formats(
    dtype: Annotated[list[str] | None, typer.Option(help=f"Dtype: {', '.join(ENCODINGS)}; repeatable. [default: all]")] = None,
    rows: Annotated[int, typer.Option(help="Vectors.")] = 12_000,
    dim: Annotated[int, typer.Option(help="Components of a vector.")] = 1024,
) -> Iterator[Row]:
    """Parquet encodings and codecs of vector columns.

    There is a row for each dtype, encoding and codec, and one for each size of row groups. Rates are in MB/s."""
    folder = WORK / "formats"
    folder.mkdir(parents=True, exist_ok=True)
    vectors = widen(real_vectors(2000), rows, dim)
    measure(folder / "vectors.parquet", stored_column(vectors, "float32"), "PLAIN", "none", None)  # the first use of memory is slow
    for name in dtype or ENCODINGS:
        column = stored_column(vectors, name)
        base: dict[str, Any] = {}
        for encoding in ENCODINGS[name]:
            for codec, level in CODECS:
                figures = measure(folder / "vectors.parquet", column, encoding, codec, level)
                base = base or figures  # the job writes the first
                ratios = {f"{key}_over": round(figures[key] / base[key], 3) for key in base if figures.get(key)}
                yield {"dtype": name, "encoding": encoding, "codec": codec if level is None else f"{codec} {level}"} | figures | ratios
    yield from compare_group_sizes(folder, vectors)
    shutil.rmtree(folder)


def real_vectors(documents: int) -> Vectors:
    """MiniLM's vectors of so many demo documents. They are kept in a file."""
    cache = WORK / f"minilm-{documents}.npy"
    if not cache.exists():
        rows = list(demo_corpus.documents())
        model = describe(str(model_folder("minilm")), None)
        tokens = load_tokenizer(model, SHAPES["minilm"].max_tokens).encode(
            [rows[n * len(rows) // documents]["text"] for n in range(documents)]
        )
        with in_process.quiet():
            embedder = in_process.load(model, SHAPES["minilm"].max_tokens, EngineConfig(dtype=engine_dtype()))
            np.save(cache, embedder.embed([tokens.of(number) for number in range(documents)]))
    vectors: Vectors = np.load(cache)
    return vectors


def widen(real: Vectors, rows: int, dim: int) -> Vectors:
    """Vectors of shape (rows, dim). Each part of the real width mixes two random documents, so that no two rows share bits."""
    random_rows = np.random.default_rng(0)
    parts = []
    for _ in range(-(-dim // real.shape[1])):
        first, second = random_rows.integers(len(real), size=(2, rows))
        parts.append(real[first] + real[second] / 2)
    return matryoshka.cut_vectors(np.concatenate(parts, axis=1), dim)


def stored_column(vectors: Vectors, dtype: str) -> pa.Array:
    """The column that the job would write."""
    (form,) = parse_forms([f"{vectors.shape[1]}:{dtype}"])
    values = quantize.encode_vectors(vectors, form, quantize.measure_int8_ranges(vectors[::8], form.dim))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def measure(path: Path, column: pa.Array, encoding: str, codec: str, level: int | None) -> dict[str, Any]:
    """Bytes for each vector, and MB/s of writing, of reading with pyarrow, and of two ways to read with DuckDB."""
    table = pa.table({"embedding": column})
    size = column.flatten().nbytes / 1e6

    def write() -> None:
        write_as(path, table, encoding, codec, level, ROWS_PER_GROUP)

    connection = duckdb.connect()
    calls: dict[str, Callable[[], Any]] = {
        "write_mb_s": write,
        "pyarrow_mb_s": lambda: pq.ParquetFile(path).read(),
        "duckdb_scan_mb_s": lambda: connection.sql("select sum(embedding[1]) from read_parquet(?)", params=[str(path)]).fetchall(),
        "duckdb_arrow_mb_s": lambda: connection.sql("select embedding from read_parquet(?)", params=[str(path)]).to_arrow_table(),
    }
    write()
    figures: dict[str, Any] = {"bytes_per_vector": round(path.stat().st_size / len(column), 1)}
    for name, call in calls.items():
        try:
            figures[name] = round(size / median_seconds(call))
        except duckdb.Error as failed:
            figures["problem"] = f"DuckDB: {str(failed).splitlines()[0]}"
    return figures


def write_as(path: Path, table: pa.Table, encoding: str, codec: str, level: int | None, group: int) -> None:
    dictionary = encoding == "DICTIONARY"
    pq.write_table(
        table,
        path,
        row_group_size=group,
        compression={LEAF: codec} | ({"id": "zstd"} if "id" in table.column_names else {}),
        compression_level=None if level is None else {LEAF: level},
        use_dictionary=[LEAF] if dictionary else False,
        column_encoding=None if dictionary else {LEAF: encoding},
        write_statistics=["id"],
    )


def compare_group_sizes(folder: Path, vectors: Vectors) -> Iterator[dict[str, Any]]:
    """Ten rows by id from 65,536 rows of float32, PLAIN without a codec, for several sizes of row groups.

    Sorted ids, such as numbers, let a reader skip row groups by their statistics. Random ids, such as hashes, do not."""
    rows = 65_536
    column = stored_column(np.resize(vectors, (rows, vectors.shape[1])), "float32")
    path = folder / "groups.parquet"
    for order in ("sorted", "random"):
        ids = [f"document-{number:08d}" for number in range(rows)]
        if order == "random":
            random.Random(0).shuffle(ids)  # noqa: S311
        for group in (1024, 8192, 65_536):
            write_as(path, pa.table({"id": ids, "embedding": column}), "PLAIN", "none", None, group)
            yield {"dtype": "float32", "rows_per_group": group, "ids": order} | ten_rows(path, ids)


def ten_rows(path: Path, ids: list[str]) -> dict[str, Any]:
    """Milliseconds to read ten neighbouring rows, and ten rows from all over the file."""
    connection = duckdb.connect()
    figures: dict[str, Any] = {}
    for name, ten_ids in (("near", ids[30_000:30_010]), ("far", ids[:: len(ids) // 10][:10])):
        listed = ", ".join(f"'{row_id}'" for row_id in ten_ids)
        query = f"select embedding from '{path}' where id in ({listed})"  # noqa: S608
        reads: dict[str, Callable[[], Any]] = {
            f"pyarrow_{name}_ms": partial(pq.read_table, path, filters=[("id", "in", ten_ids)]),
            f"duckdb_{name}_ms": partial(arrow_of, connection, query),
        }
        for key, call in reads.items():
            if len(call()) != len(ten_ids):
                raise SystemExit(f"bench: {key} did not find its rows")
            figures[key] = round(1000 * median_seconds(call), 1)
    return figures


def arrow_of(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    return connection.sql(query).to_arrow_table()


def median_seconds(call: Callable[[], Any]) -> float:
    return statistics.median(seconds_of(call) for _ in range(ROUNDS))
