"""The Arrow contract of what comes out, and how what comes in is held to it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import parse_forms
from pipeline.errors import ConfigError, ObjectError
from pipeline.records import VectorForm

REJECTS = (
    pa.field("row", pa.int64(), nullable=False),  # of the source object
    pa.field("reason", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
)

CHUNKS = (  # of the rows of a run that cuts long documents into chunks
    pa.field("chunk_index", pa.int32(), nullable=False),
    pa.field("char_start", pa.int64(), nullable=False),  # characters of the composed text
    pa.field("char_end", pa.int64(), nullable=False),
)
TAIL = (
    pa.field("n_tokens", pa.int32(), nullable=False),
    pa.field("truncated", pa.bool_(), nullable=False),
    pa.field("content_hash", pa.binary(16), nullable=False),  # of the composed text
)
VECTOR_TYPES = {"float32": pa.float32(), "float16": pa.float16(), "int8": pa.int8(), "binary": pa.uint8()}


def table_of(data: bytes, columns: list[str] | None = None) -> pa.Table:
    """The table of a Parquet file's bytes, decoded on this thread.

    Never `pq.read_table`: it leaves references of Python objects to Arrow's own threads, and one that lets go of its last
    while the interpreter ends brings the process down (4 in 100 on a busy host): a finished command would say it failed."""
    return pq.ParquetFile(pa.BufferReader(data)).read(columns, use_threads=False)


def vector_columns(forms: tuple[VectorForm, ...]) -> dict[str, VectorForm]:
    """`embedding` for the first form asked for, `embedding_<dim>` for the others; where a dimension
    comes again, `embedding_<dim>_<dtype>`."""
    columns: dict[str, VectorForm] = {}
    for form in forms:
        name = f"embedding_{form.dim}" if columns else "embedding"
        columns[f"{name}_{form.dtype}" if name in columns else name] = form
    return columns


def forms_of(provenance: dict[str, str]) -> dict[str, VectorForm]:
    """The vector columns of a finished dataset."""
    return vector_columns(parse_forms(provenance["vectors"].split(",")))


def stored(table: pa.Table, name: str) -> npt.NDArray[np.generic]:
    """A vector column as it is stored: (rows, dim), or (rows, dim / 8) of packed bits."""
    column = table[name].combine_chunks()
    flat: npt.NDArray[np.generic] = column.flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(len(column), column.type.list_size)


def vector_type(form: VectorForm) -> pa.DataType:
    """Binary vectors are packed, eight signs a byte."""
    return pa.list_(VECTOR_TYPES[form.dtype], form.dim // 8 if form.dtype == "binary" else form.dim)


def rejects_schema(id_type: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field("id", id_type), *REJECTS])


def output_schema(rows: pa.Schema, forms: tuple[VectorForm, ...]) -> pa.Schema:
    """Of a data file. `rows`: id, kept columns, (CHUNKS,) TAIL."""
    tail = [field.name for field in TAIL]
    front = [field for field in rows if field.name not in tail]
    return pa.schema([*front, *(pa.field(name, vector_type(form), nullable=False) for name, form in vector_columns(forms).items()), *TAIL])


def carried_schema(source: pa.Schema, id_column: str, keep_columns: tuple[str, ...]) -> pa.Schema:
    """The id (renamed `id`) and the kept columns as they go into the output."""
    id_type = plain(source.field(id_column).type)
    if pa.types.is_nested(id_type) or pa.types.is_null(id_type):
        raise ConfigError(f"id_column: {id_column!r} has type {id_type}, not a scalar")
    kept = [pa.field(name, plain(source.field(name).type)) for name in keep_columns]
    return pa.schema([pa.field("id", id_type, nullable=False), *kept])


def plain(kind: pa.DataType) -> pa.DataType:
    """A dictionary-encoded column goes out as the values it stands for."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def is_text(kind: pa.DataType) -> bool:
    kind = plain(kind)
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_string_view,
            pa.types.is_binary,
            pa.types.is_large_binary,
        )
    )


def require_columns(present: list[str], wanted: tuple[str, ...], where: str) -> None:
    """Raises ObjectError that lists the columns there are."""
    for name in wanted:
        if name not in present:
            raise ObjectError(f"{where}: no column {name!r}; its columns are {', '.join(present) or 'none'}")
        if present.count(name) > 1:
            raise ObjectError(f"{where}: has {present.count(name)} columns named {name!r}")


def cast(column: pa.ChunkedArray, wanted: pa.DataType, name: str, where: str) -> pa.ChunkedArray:
    """`column` in the type that the first object of the run set; ObjectError shows both types."""
    try:
        return column.cast(wanted)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        raise ObjectError(f"{where}: column {name!r} has type {column.type}, but {wanted} in the first object of the source") from None


def arrow_type(name: str, field: str) -> pa.DataType:
    """An Arrow type by its name (`int64`, `string`, `timestamp[us]`); ConfigError names the field."""
    try:
        return pa.type_for_alias(name)
    except ValueError:
        raise ConfigError(f"{field}: {name!r} is not an Arrow type such as string, int64, double or bool") from None
