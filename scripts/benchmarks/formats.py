"""Where the bytes of vectors go: Parquet encodings and codecs by size and by the time to write and read them.

Vectors are made of MiniLM's own for demo documents: the bits of real components, not of noise. MB are of the vectors as
they are in memory, so that rates of one dtype compare; `..._over` is the ratio to what pipeline/writer.py writes.
"""

from __future__ import annotations

import random
import shutil
import statistics
import time
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
from bulkembed.vectors import matryoshka
from bulkembed.vectors.matryoshka import Vectors
from scripts.benchmarks.material import SHAPES, WORK, Row, engine_dtype, model_folder
from scripts.samples import demo_corpus

LEAF = "embedding.list.element"
FLOATS = ("PLAIN", "BYTE_STREAM_SPLIT")
# Parquet has no type of one byte: PLAIN stores int8 and packed bits as INT32, four bytes each.
BYTES = ("DICTIONARY", "PLAIN", "BYTE_STREAM_SPLIT", "DELTA_BINARY_PACKED")
ENCODINGS = {"float32": FLOATS, "float16": FLOATS, "int8": BYTES, "binary": BYTES}
CODECS: tuple[tuple[str, int | None], ...] = (("none", None), ("snappy", None), ("lz4", None), ("zstd", 1), ("zstd", 3), ("zstd", 9))
ROUNDS = 3


def formats(
    dtype: Annotated[list[str] | None, typer.Option(help=f"{', '.join(ENCODINGS)}; repeatable. [default: all]")] = None,
    rows: int = 12_000,
    dim: int = 1024,
) -> Iterator[Row]:
    """Parquet encodings and codecs: a row for each dtype, encoding and codec; then one for each size of row groups."""
    folder = WORK / "formats"
    folder.mkdir(parents=True, exist_ok=True)
    made = widened(real_vectors(2000), rows, dim)
    measure(folder / "vectors.parquet", stored(made, "float32"), "PLAIN", "none", None)  # memory's first use is slow, whatever the encoding
    for kind in dtype or ENCODINGS:
        column = stored(made, kind)
        base: dict[str, Any] = {}
        for encoding in ENCODINGS[kind]:
            for codec, level in CODECS:
                found = measure(folder / "vectors.parquet", column, encoding, codec, level)
                base = base or found  # the first is what the job writes
                ratios = {f"{key}_over": round(found[key] / base[key], 3) for key in base if found.get(key)}
                named = {"dtype": kind, "encoding": encoding, "codec": codec if level is None else f"{codec} {level}"}
                yield named | found | ratios
    yield from by_groups(folder, made)
    shutil.rmtree(folder)


def real_vectors(documents: int) -> Vectors:
    """MiniLM's of so many demo documents, made once."""
    kept = WORK / f"minilm-{documents}.npy"
    if not kept.exists():
        rows = list(demo_corpus.documents())
        model = describe(str(model_folder("minilm")), None)
        tokens = load_tokenizer(model, SHAPES["minilm"].max_tokens).encode(
            [rows[n * len(rows) // documents]["text"] for n in range(documents)]
        )
        with in_process.quiet():
            embedder = in_process.load(model, SHAPES["minilm"].max_tokens, EngineConfig(dtype=engine_dtype()))
            np.save(kept, embedder.embed([tokens.of(number) for number in range(documents)]))
    vectors: Vectors = np.load(kept)
    return vectors


def widened(real: Vectors, rows: int, dim: int) -> Vectors:
    """(rows, dim): every stretch of the real width is a mix of two random documents, so that no two rows share bits."""
    chosen = np.random.default_rng(0)
    stretches = []
    for _ in range(-(-dim // real.shape[1])):
        first, second = chosen.integers(len(real), size=(2, rows))
        stretches.append(real[first] + real[second] / 2)
    return matryoshka.cut(np.concatenate(stretches, axis=1), dim)


def stored(vectors: Vectors, dtype: str) -> pa.Array:
    """The column that the job would write."""
    (form,) = parse_forms([f"{vectors.shape[1]}:{dtype}"])
    values = matryoshka.encode(vectors, form, matryoshka.ranges_of(vectors[::8], form.dim))
    return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])


def measure(path: Path, column: pa.Array, encoding: str, codec: str, level: int | None) -> dict[str, Any]:
    """Bytes a vector, and MB/s of writing, of reading with pyarrow, and of two ways to read with DuckDB."""
    table = pa.table({"embedding": column})
    size = column.flatten().nbytes / 1e6

    def write() -> None:
        write_as(path, table, encoding, codec, level, ROWS_PER_GROUP)

    connection = duckdb.connect()
    measured: dict[str, Callable[[], Any]] = {
        "write_mb_s": write,
        "pyarrow_mb_s": lambda: pq.ParquetFile(path).read(),
        "duckdb_scan_mb_s": lambda: connection.sql("select sum(embedding[1]) from read_parquet(?)", params=[str(path)]).fetchall(),
        "duckdb_arrow_mb_s": lambda: connection.sql("select embedding from read_parquet(?)", params=[str(path)]).to_arrow_table(),
    }
    write()
    found: dict[str, Any] = {"bytes_per_vector": round(path.stat().st_size / len(column), 1)}
    for name, call in measured.items():
        try:
            found[name] = round(size / seconds(call))
        except duckdb.Error as failed:
            found["problem"] = f"DuckDB: {str(failed).splitlines()[0]}"
    return found


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


def by_groups(folder: Path, vectors: Vectors) -> Iterator[dict[str, Any]]:
    """Ten rows by id from 65,536 rows of float32, PLAIN without a codec. Ids in the order of the file (as of a corpus
    that was numbered) let a reader skip row groups by their statistics; ids in random order (hashes) do not."""
    rows = 65_536
    column = stored(np.resize(vectors, (rows, vectors.shape[1])), "float32")
    path = folder / "groups.parquet"
    for order in ("sorted", "random"):
        ids = [f"document-{number:08d}" for number in range(rows)]
        if order == "random":
            random.Random(0).shuffle(ids)  # noqa: S311
        for group in (1024, 8192, 65_536):
            write_as(path, pa.table({"id": ids, "embedding": column}), "PLAIN", "none", None, group)
            yield {"dtype": "float32", "rows_per_group": group, "ids": order} | ten_rows(path, ids)


def ten_rows(path: Path, ids: list[str]) -> dict[str, Any]:
    """Milliseconds of reading ten neighbouring rows, and ten from anywhere."""
    connection = duckdb.connect()
    found: dict[str, Any] = {}
    for name, wanted in (("near", ids[30_000:30_010]), ("far", ids[:: len(ids) // 10][:10])):
        listed = ", ".join(f"'{each}'" for each in wanted)
        query = f"select embedding from '{path}' where id in ({listed})"  # noqa: S608
        reads: dict[str, Callable[[], Any]] = {
            f"pyarrow_{name}_ms": partial(pq.read_table, path, filters=[("id", "in", wanted)]),
            f"duckdb_{name}_ms": partial(arrow_of, connection, query),
        }
        for key, call in reads.items():
            if len(call()) != len(wanted):
                raise SystemExit(f"formats: {key} did not find its rows")
            found[key] = round(1000 * seconds(call), 1)
    return found


def arrow_of(connection: duckdb.DuckDBPyConnection, query: str) -> Any:
    return connection.sql(query).to_arrow_table()


def seconds(call: Callable[[], Any]) -> float:
    """Median of three."""
    spent = []
    for _ in range(ROUNDS):
        started = time.perf_counter()
        call()
        spent.append(time.perf_counter() - started)
    return statistics.median(spent)
