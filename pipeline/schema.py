"""The Arrow contract of what comes out, and how what comes in is held to it."""

from __future__ import annotations

import pyarrow as pa

from pipeline.errors import ConfigError, ObjectError

REJECTS = (
    pa.field("row", pa.int64(), nullable=False),  # of the source object
    pa.field("reason", pa.string(), nullable=False),
    pa.field("detail", pa.string(), nullable=False),
)

VECTOR_TYPES = {"float32": pa.float32(), "float16": pa.float16()}


def vector_column(dim: int, dims: tuple[int, ...]) -> str:
    """`embedding` for the first dimension asked for, `embedding_<d>` for the others."""
    return "embedding" if dim == dims[0] else f"embedding_{dim}"


def rejects_schema(id_type: pa.DataType) -> pa.Schema:
    return pa.schema([pa.field("id", id_type), *REJECTS])


def output_schema(carried: pa.Schema, dims: tuple[int, ...], dtype: str) -> pa.Schema:
    """Of a data file. `carried`: the id and the kept columns in the source's types."""
    vectors = [pa.field(vector_column(d, dims), pa.list_(VECTOR_TYPES[dtype], d), nullable=False) for d in dims]
    return pa.schema(
        [
            *carried,
            *vectors,
            pa.field("n_tokens", pa.int32(), nullable=False),
            pa.field("truncated", pa.bool_(), nullable=False),
            pa.field("content_hash", pa.binary(16), nullable=False),
        ]
    )


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
