"""A shard -> its documents and rejects. Rows that cannot be embedded become rejects, each with a reason:

null_text      every text column is null or absent
empty_text     nothing but white space
not_text       a text column holds a number, a list, ...
undecodable    bytes that are not UTF-8
not_json       a JSONL line that is no JSON object
line_too_long  a JSONL line of more than MAX_LINE_BYTES
null_id        the id is null or absent
wrong_type     an id or kept column that does not fit the type of the run
too_long       more tokens than the limit, where the run rejects long documents (see stages)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.config.recipe import Recipe
from bulkembed.config.template import template_pieces
from bulkembed.errors import ObjectError
from bulkembed.records import Documents, Shard
from bulkembed.source import conversion, json_lines
from bulkembed.source.columns import require_names
from bulkembed.source.conversion import Reasons
from bulkembed.source.text_lines import MAX_LINE_BYTES, read_lines, seek_first_line
from bulkembed.storage.retry import CORRUPT, describe_error
from bulkembed.storage.store import Store, changed_error

READ_ROWS = 16_384


class Unusable(Exception):
    """Why a document cannot be embedded: (reason, detail)."""


def read_documents(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> Documents:
    """The documents of a shard. `carried` is the schema of the id and the kept columns in the output.

    Raises ObjectError where the object is corrupt, lacks a column, or changed since it was planned."""
    read_rows = {"parquet": parquet_rows, "jsonl": jsonl_rows}[shard.format]
    try:
        columns, reasons = store.retrying(lambda: read_rows(store, shard, recipe, carried), f"reading {shard.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{shard.uri}: rows {shard.start}-{shard.stop} are unreadable: {describe_error(error)}") from error
    require_unchanged(store, shard)
    rows = pa.Table.from_arrays([columns[field.name] for field in carried], schema=nullable_schema(carried))
    if rows.num_rows != shard.rows:
        raise ObjectError(f"{shard.uri}: {rows.num_rows} rows where {shard.rows} were planned; run again to plan it anew")
    for row, missing in enumerate(rows["id"].is_null().to_pylist()):
        if missing:
            reasons.setdefault(row, ("null_id", ""))
    values = list(zip(*(columns[f"text:{name}"] for name in recipe.vector_key.text_columns), strict=True))
    return split_rows(rows, values, reasons, shard, recipe, carried)


def require_unchanged(store: Store, shard: Shard) -> None:
    """Raises ObjectError where the object has changed since it was opened. What was read may then be a mixture."""
    try:
        current = store.version(shard.uri)
    except FileNotFoundError:
        current = "gone"
    if current != shard.version:
        raise changed_error(shard.uri)


def split_rows(
    rows: pa.Table, values: Sequence[tuple[Any, ...]], reasons: Reasons, shard: Shard, recipe: Recipe, carried: pa.Schema
) -> Documents:
    """Splits a shard's rows into documents and rejects."""
    pieces = template_pieces(recipe.vector_key.template, recipe.vector_key.text_columns)
    texts: list[str] = []
    for row, texts_of_row in enumerate(values):
        if row in reasons:
            continue
        try:
            texts.append(compose(texts_of_row, pieces))
        except Unusable as problem:
            reasons[row] = problem.args
    rejected = sorted(reasons)
    accepted = rows.filter(pa.array([row not in reasons for row in range(rows.num_rows)], pa.bool_()))
    rejects = pa.Table.from_arrays(
        [
            rows["id"].take(pa.array(rejected, pa.int64())),
            pa.array([shard.start + row for row in rejected], pa.int64()),
            pa.array([reasons[row][0] for row in rejected], pa.string()),
            pa.array([reasons[row][1] for row in rejected], pa.string()),
        ],
        schema=schema.rejects_schema(carried.field("id").type),
    )
    repeated = accepted.num_rows - len(storage_values(accepted["id"]).unique())
    kept = np.array([shard.start + row for row in range(rows.num_rows) if row not in reasons], np.int64)
    return Documents(accepted.cast(carried), kept, texts, rejects, repeated)


def storage_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without its extension type. Arrow cannot find repeated values of types such as UUID."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def compose(values: tuple[Any, ...], pieces: list[tuple[str, int | None]]) -> str:
    """One document from its text columns. Raises Unusable."""
    parts = [as_text(value) for value in values]
    whole = "".join([part for part in parts if part])
    if not whole or whole.isspace():
        raise Unusable("empty_text" if any(part is not None for part in parts) else "null_text", "")
    return "".join([literal if column is None else literal + (parts[column] or "") for literal, column in pieces])


def as_text(value: Any) -> str | None:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unusable("undecodable", f"byte {error.start} is not UTF-8") from None
    raise Unusable("not_text", f"{type(value).__name__}: {value!r}"[:200])


def nullable_schema(carried: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in carried])


def source_name(name: str, recipe: Recipe) -> str:
    return recipe.row_schema.id_column if name == "id" else name


def parquet_rows(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> tuple[dict[str, Any], Reasons]:
    """The columns of the output by name and the texts as `text:<column>`, for the rows of a shard; and why some rows are rejects."""
    metadata = footer(store, shard.uri, shard.version)
    names = recipe.source_columns
    with store.open(shard.uri, shard.version) as file:
        parquet = pq.ParquetFile(file, metadata=metadata, pre_buffer=True, page_checksum_verification=True)
        require_names(parquet.schema_arrow.names, names, shard.uri)
        table = rows_of(parquet, shard, names)
        int96 = int96_columns(parquet, recipe.row_schema.carried_columns)
        if int96:
            coarse = pq.ParquetFile(file, metadata=metadata, coerce_int96_timestamp_unit="us", page_checksum_verification=True)
            microseconds = rows_of(coarse, shard, int96)
    columns: dict[str, Any] = {}
    reasons: Reasons = {}
    for field in carried:
        name = source_name(field.name, recipe)
        column = table[name]
        overflown: Reasons = {}
        if name in int96:
            column, overflown = conversion.null_overflow(column, microseconds[name], name)
        allowed = conversion.may_cast if name in recipe.row_schema.declared_types else conversion.same_meaning
        column = conversion.convert_column(column, field.type, name, allowed, shard.uri, shard.start)
        columns[field.name], undecodable = conversion.null_unreadable(column, name)
        reasons = overflown | undecodable | reasons
    for name in recipe.vector_key.text_columns:
        columns[f"text:{name}"] = text_values(table[name])
    return columns, reasons


def rows_of(parquet: pq.ParquetFile, shard: Shard, names: Sequence[str]) -> pa.Table:
    """These columns of the shard's rows."""
    groups: list[int] = []
    first_row, at = shard.start, 0
    for number in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(number).num_rows
        if at < shard.stop and at + rows > shard.start:
            first_row = min(first_row, at) if groups else at
            groups.append(number)
        at += rows
    batches, row = [], first_row
    for batch in parquet.iter_batches(READ_ROWS, row_groups=groups, columns=list(names)):
        start, stop = max(row, shard.start), min(row + batch.num_rows, shard.stop)
        if start < stop:
            batches.append(batch.slice(start - row, stop - start))
        row += batch.num_rows
        if row >= shard.stop:
            break
    return pa.Table.from_batches(batches, pa.schema([parquet.schema_arrow.field(name) for name in names]))


def int96_columns(parquet: pq.ParquetFile, names: Iterable[str]) -> list[str]:
    """Columns with INT96 timestamps, as Spark writes them. Arrow reads them as nanoseconds, and wrongly before 1677 and after 2262."""
    kinds = {name: parquet.schema_arrow.field(name).type for name in names}
    maybe = [name for name, kind in kinds.items() if pa.types.is_timestamp(kind) or pa.types.is_nested(kind)]
    leaves = (parquet.schema.column(number) for number in range(len(parquet.schema) if maybe else 0))
    paths = [leaf.path for leaf in leaves if leaf.physical_type == "INT96"]
    return [name for name in maybe if any(path == name or path.startswith(f"{name}.") for path in paths)]


@lru_cache(maxsize=4)
def footer(store: Store, uri: str, version: str) -> pq.FileMetaData:
    """The footer of one version of an object. It is read once a process, since most shards have a neighbour in the same object."""
    with store.open(uri, version) as file:
        return pq.read_metadata(file)


def text_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; raw bytes where a string column contains bytes that are not UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return values


def jsonl_rows(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> tuple[dict[str, Any], Reasons]:
    """As `parquet_rows`, for a range of non-blank lines."""
    expected_bytes = shard.text_bytes * (shard.skip + shard.rows) // shard.rows
    with store.open_lines(shard.uri, shard.version, expected_bytes) as file:
        file.seek(shard.offset or seek_first_line(file))
        not_blank = ((line, length) for line, length in read_lines(file) if not line.isspace())
        rows, parsed, reasons = parse_lines(islice(not_blank, shard.skip, shard.skip + shard.rows))
    json_lines.restore_digits(rows, parsed, [source_name(field.name, recipe) for field in carried])
    columns: dict[str, Any] = {}
    for field in carried:
        name = source_name(field.name, recipe)
        columns[field.name] = json_lines.typed_array([row.get(name) for row in rows], field, name, reasons)
    for name in recipe.vector_key.text_columns:
        columns[f"text:{name}"] = [row.get(name) for row in rows]
    return columns, reasons


def parse_lines(lines: Iterable[tuple[bytes, int]]) -> tuple[list[dict[str, Any]], list[bytes], Reasons]:
    """One dict a line, empty where the line is no JSON object; the lines themselves; and why some are no objects.

    `lines`: with their lengths in bytes."""
    rows: list[dict[str, Any]] = []
    parsed: list[bytes] = []
    reasons: Reasons = {}
    for number, (line, length) in enumerate(lines):
        parsed.append(line)
        if length > len(line):
            rows.append({})
            reasons[number] = ("line_too_long", f"{length:,} bytes, more than {MAX_LINE_BYTES:,}")
            continue
        try:
            row = json_lines.parse_line(line)
        except ValueError as error:
            row, reasons[number] = {}, ("not_json", str(error)[:200])
        if not isinstance(row, dict):
            row, reasons[number] = {}, ("not_json", f"a JSON {type(row).__name__}, not an object")
        rows.append(row)
    return rows, parsed, reasons
