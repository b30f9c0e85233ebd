"""The Arrow contract of what comes out, and how what comes in is held to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.errors import ConfigError, ObjectError
from bulkembed.records import VectorForm, parse_forms

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
LISTS = (pa.ListType, pa.LargeListType, pa.FixedSizeListType, pa.ListViewType, pa.LargeListViewType)
WITHOUT_VIEW = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}
JSON_TEXT = {b"bulkembed.values": b"JSON text"}  # of a field: what is not text in the source is JSON here
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


def shown(column: pa.ChunkedArray, row: int) -> Any:
    """A value for people: as Python has it, and as Arrow writes it where it holds a time that Python's own types do not."""
    try:
        return column[row].as_py()
    except (ValueError, OverflowError):
        return " ".join(column.slice(row, 1).combine_chunks().to_string().split())[2:-2]


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
    values = id_type.storage_type if isinstance(id_type, pa.BaseExtensionType) else id_type
    if pa.types.is_nested(values) or pa.types.is_null(values):
        raise ConfigError(f"id_column: {id_column!r} has type {id_type}, not a scalar")
    fields = [carried_field("id", source.field(id_column)).with_nullable(False)]
    fields += [carried_field(name, source.field(name)) for name in keep_columns]
    keys = ("id_column", *("keep_columns" for _ in keep_columns))
    for key, name, field in zip(keys, (id_column, *keep_columns), fields, strict=True):
        require_storable(key, name, field)
    return pa.schema(fields)


def carried_field(name: str, field: pa.Field) -> pa.Field:
    return json_text(name) if holds_json_text(field) else pa.field(name, plain(field.type))


def require_storable(key: str, name: str, field: pa.Field) -> None:
    """Raises ConfigError where Parquet has no such type, as of a struct without fields, or where Arrow cannot pick rows of it."""
    try:
        empty = without_rows(pa.schema([field]))
        pq.write_table(empty, pa.BufferOutputStream())
        empty.take(pa.array([], pa.int64()))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{key}: {name!r} has type {field.type}, which Arrow cannot write to Parquet row by row ({str(error).splitlines()[0]}); name "
            f'another column, or for JSON lines set column_types.{name} = "string", which takes any value as text'
        ) from None


def without_rows(arrow: pa.Schema) -> pa.Table:
    """`Schema.empty_table` cannot make lists of UUIDs."""
    return pa.Table.from_batches([], arrow)


def json_text(name: str) -> pa.Field:
    """A column that takes any value of JSON: text as it is, all else as JSON text."""
    return pa.field(name, pa.string(), metadata=JSON_TEXT)


def holds_json_text(field: pa.Field) -> bool:
    return dict(field.metadata or {}).items() >= JSON_TEXT.items()


def plain(kind: pa.DataType) -> pa.DataType:
    """Without encodings that Arrow's functions and other readers lack: dictionaries, views and narrow decimals go out as the values
    they stand for. Parts of a value may be null in another file; one that is null in all that were looked at is text."""
    if pa.types.is_dictionary(kind):
        return plain(kind.value_type)
    if pa.types.is_decimal32(kind) or pa.types.is_decimal64(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_nested(kind):
        return with_parts(kind, lambda part: pa.field(part.name, pa.string() if pa.types.is_null(part.type) else plain(part.type)))
    return WITHOUT_VIEW.get(kind, kind)


def with_parts(kind: pa.DataType, change: Callable[[pa.Field], pa.Field]) -> pa.DataType:
    """The same struct, or a list of the same values, with other fields; any other type as it is."""
    if pa.types.is_struct(kind):
        return pa.struct([change(part) for part in kind])
    if isinstance(kind, pa.ListType | pa.ListViewType):
        return pa.list_(change(kind.value_field))
    if isinstance(kind, pa.LargeListType | pa.LargeListViewType):
        return pa.large_list(change(kind.value_field))
    return kind


def has_null(kind: pa.DataType) -> bool:
    """Whether the type of the column, or of a part of it, is unknown."""
    return pa.types.is_null(kind) or any(has_null(kind.field(number).type) for number in range(kind.num_fields))


def filled(kind: pa.DataType, other: pa.DataType) -> pa.DataType:
    """`kind`, with the types of `other` where it has none."""
    if pa.types.is_null(kind):
        return other
    if pa.types.is_struct(kind) and pa.types.is_struct(other):
        known = {part.name: part.type for part in other}
        return with_parts(kind, lambda part: part.with_type(filled(part.type, known.get(part.name, part.type))))
    if isinstance(kind, LISTS) and isinstance(other, LISTS):
        return with_parts(kind, lambda part: part.with_type(filled(part.type, other.value_type)))
    return kind


def is_text(kind: pa.DataType) -> bool:
    """Whether a column may hold texts: one that is null throughout holds as many as none."""
    kind = plain(kind)
    kind = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    return any(
        test(kind)
        for test in (
            pa.types.is_string,
            pa.types.is_large_string,
            pa.types.is_binary,
            pa.types.is_large_binary,
            pa.types.is_null,
        )
    )


def require_columns(present: list[str], wanted: tuple[str, ...], where: str) -> None:
    """Raises ObjectError that lists the columns there are."""
    for name in wanted:
        if name not in present:
            raise ObjectError(f"{where}: no column {name!r}; its columns are {', '.join(present) or 'none'}")
        if present.count(name) > 1:
            raise ObjectError(f"{where}: has {present.count(name)} columns named {name!r}")


def arrow_type(name: str, field: str) -> pa.DataType:
    """An Arrow type by its name (`int64`, `string`, `timestamp[us]`); ConfigError names the field."""
    try:
        return pa.type_for_alias(name)
    except ValueError:
        raise ConfigError(f"{field}: {name!r} is not an Arrow type such as string, int64, double or bool") from None
