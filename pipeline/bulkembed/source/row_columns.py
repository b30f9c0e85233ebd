"""Rows as they were read -> their columns in the types of the run, their texts, and why some rows are rejects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkembed.config.recipe import Recipe
from bulkembed.source import conversion, json_lines
from bulkembed.source.conversion import Reasons
from bulkembed.source.text_lines import MAX_LINE_BYTES


@dataclass(frozen=True)
class RowColumns:
    """The columns of n rows of one object."""

    rows: pa.Table  # n: id, kept columns; null where a value does not fit
    texts: list[list[Any]]  # for each text column n values: text, None, bytes that are no text, or any other value
    reasons: Reasons  # of rows whose values do not fit, or that are no rows


def parquet_columns(
    table: pa.Table, microseconds: pa.Table, recipe: Recipe, carried: pa.Schema, uri: str, object_rows: Sequence[int]
) -> RowColumns:
    """The columns of rows of a Parquet file. Raises ObjectError where a column has another type than the run.

    `microseconds`: the columns with INT96 timestamps once more, in microseconds. `object_rows`: where each row lies in the object."""
    columns: list[pa.ChunkedArray] = []
    reasons: Reasons = {}
    for field, name in carried_names(carried, recipe):
        column = table[name]
        overflown: Reasons = {}
        if name in microseconds.column_names:
            column, overflown = conversion.null_overflow(column, microseconds[name], name)
        allowed = conversion.may_cast if name in recipe.row_schema.declared_types else conversion.same_meaning
        column = conversion.convert_column(column, field.type, name, allowed, uri, object_rows)
        column, undecodable = conversion.null_unreadable(column, name)
        columns.append(column)
        reasons = overflown | undecodable | reasons
    rows = pa.Table.from_arrays(columns, schema=nullable_schema(carried))
    return RowColumns(rows, [text_values(table[name]) for name in recipe.vector_key.text_columns], reasons)


def text_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; raw bytes where a string column contains bytes that are not UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        values = column.cast(pa.large_binary()).to_pylist()
    return values


def jsonl_columns(lines: Iterable[tuple[bytes, int]], recipe: Recipe, carried: pa.Schema) -> RowColumns:
    """The columns of lines that are not blank. `lines`: with their lengths in bytes."""
    rows, parsed, reasons = parse_lines(lines)
    json_lines.restore_digits(rows, parsed, [name for _, name in carried_names(carried, recipe)])
    columns = [
        json_lines.typed_array([row.get(name) for row in rows], field, name, reasons) for field, name in carried_names(carried, recipe)
    ]
    table = pa.Table.from_arrays(columns, schema=nullable_schema(carried))
    return RowColumns(table, [[row.get(name) for row in rows] for name in recipe.vector_key.text_columns], reasons)


def parse_lines(lines: Iterable[tuple[bytes, int]]) -> tuple[list[dict[str, Any]], list[bytes], Reasons]:
    """One dict a line, empty where the line is no JSON object; the lines themselves; and why some are no objects."""
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


def carried_names(carried: pa.Schema, recipe: Recipe) -> Iterator[tuple[pa.Field, str]]:
    """Each field of the id and the kept columns, with its name in the source."""
    for field in carried:
        yield field, recipe.row_schema.id_column if field.name == "id" else field.name


def nullable_schema(carried: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in carried])
