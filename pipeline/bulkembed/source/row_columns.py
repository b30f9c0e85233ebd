"""Rows as they were read -> their columns in the types of the run, their texts, and why some rows are rejects."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bulkembed.config.recipe import Recipe
from bulkembed.formats.rows import ArrowRows, JsonRows, Rows, TextRows
from bulkembed.records import Reasons
from bulkembed.source import conversion, json_values
from bulkembed.source.text_values import typed_texts


@dataclass(frozen=True)
class RowColumns:
    """The columns of n rows of one object."""

    rows: pa.Table  # n: id, kept columns; null where a value does not fit
    texts: list[list[Any]]  # for each text column n values: text, None, bytes that are no text, or any other value
    reasons: Reasons  # of rows whose values do not fit, or that are no rows


def row_columns(rows: Rows, recipe: Recipe, carried: pa.Schema, uri: str, object_rows: Sequence[int]) -> RowColumns:
    """The columns of rows of one object. `object_rows`: where each row lies in the object.

    Raises ObjectError where a column of Arrow rows has another type than the run."""
    if isinstance(rows, JsonRows):
        return json_columns(rows, recipe, carried)
    if isinstance(rows, TextRows):
        return text_columns(rows, recipe, carried)
    return arrow_columns(rows, recipe, carried, uri, object_rows)


def arrow_columns(rows: ArrowRows, recipe: Recipe, carried: pa.Schema, uri: str, object_rows: Sequence[int]) -> RowColumns:
    columns: list[pa.ChunkedArray] = []
    reasons: Reasons = {}
    for field, name in carried_names(carried, recipe):
        column = rows.table[name]
        overflown: Reasons = {}
        if name in rows.microseconds.column_names:
            column, overflown = conversion.null_overflow(column, rows.microseconds[name], name)
        allowed = conversion.may_cast if name in recipe.row_schema.declared_types else conversion.same_meaning
        column = conversion.convert_column(column, field.type, name, allowed, uri, object_rows)
        column, undecodable = conversion.null_unreadable(column, name)
        columns.append(column)
        reasons = overflown | undecodable | reasons
    table = pa.Table.from_arrays(columns, schema=nullable_schema(carried))
    return RowColumns(table, [text_values(rows.table[name]) for name in recipe.vector_key.text_columns], reasons)


def text_values(column: pa.ChunkedArray) -> list[Any]:
    """The values of a column; raw bytes where a string column contains bytes that are not UTF-8."""
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raw = pa.large_binary()
        values = column.cast(pa.large_list(raw) if pa.types.is_nested(column.type) else raw).to_pylist()
    return values


def json_columns(rows: JsonRows, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    reasons = dict(rows.reasons)
    columns = [
        json_values.typed_array([row.get(name) for row in rows.values], field, name, reasons)
        for field, name in carried_names(carried, recipe)
    ]
    table = pa.Table.from_arrays(columns, schema=nullable_schema(carried))
    return RowColumns(table, [[row.get(name) for row in rows.values] for name in recipe.vector_key.text_columns], reasons)


def text_columns(rows: TextRows, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    reasons = dict(rows.reasons)
    absent = [None] * len(rows)
    columns: list[pa.Array] = []
    for field, name in carried_names(carried, recipe):
        array, unfit = typed_texts(rows.columns.get(name, absent), field, name)
        columns.append(array)
        reasons = unfit | reasons
    table = pa.Table.from_arrays(columns, schema=nullable_schema(carried))
    return RowColumns(table, [list(rows.columns.get(name, absent)) for name in recipe.vector_key.text_columns], reasons)


def carried_names(carried: pa.Schema, recipe: Recipe) -> Iterator[tuple[pa.Field, str]]:
    """Each field of the id and the kept columns, with its name in the source."""
    for field in carried:
        yield field, recipe.row_schema.id_column if field.name == "id" else field.name


def nullable_schema(carried: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in carried])
