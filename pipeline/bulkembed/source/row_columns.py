"""Rows as they were read -> their columns in the types of the run, their texts, and why some rows are rejects."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.config.recipe import Recipe
from bulkembed.formats import lax_json
from bulkembed.formats.rows import ArrowRows, JsonRows, Rows, TextRows
from bulkembed.records import Reasons
from bulkembed.source import conversion, int96, invalid_values, json_values
from bulkembed.source.column_types import holds_json_text, is_unknown, plain_type
from bulkembed.source.conversion import WrongType
from bulkembed.source.text_values import typed_texts

# Values of a column of this name -> an array of the field's type, and why some rows do not fit.
Typed = Callable[[Sequence[Any], pa.Field, str], tuple[pa.Array, Reasons]]


@dataclass(frozen=True)
class RowColumns:
    """The columns of n rows of one object."""

    rows: pa.Table  # n: id, kept columns; null where a value does not fit
    texts: list[list[Any]]  # for each text column n values: text, None, bytes that are no text, or any other value
    reasons: Reasons  # of rows whose values do not fit, or that are no rows
    repaired: int = 0  # rows with invalid values in a kept column: bytes that are not UTF-8 are U+FFFD here, invalid times are null
    # By column of JSON values, unless the configuration names its type: the first row whose value does not fit, and the value.
    misfits: Mapping[str, tuple[int, str]] = dataclasses.field(default_factory=dict)


def row_columns(rows: Rows, recipe: Recipe, carried: pa.Schema, uri: str, object_rows: Sequence[int]) -> RowColumns:
    """The columns of rows of one object. `object_rows`: where each row lies in the object.

    Raises ObjectError where a column of Arrow rows has another type than the run."""
    if isinstance(rows, JsonRows):
        return json_columns(rows, recipe, carried)
    if isinstance(rows, TextRows):
        return text_columns(rows, recipe, carried)
    return arrow_columns(rows, recipe, carried, uri, object_rows)


def arrow_columns(rows: ArrowRows, recipe: Recipe, carried: pa.Schema, uri: str, object_rows: Sequence[int]) -> RowColumns:
    """A column that the object lacks is null. Raises WrongType where one does not fit."""
    table = rows.table
    columns: list[pa.ChunkedArray] = []
    reasons: Reasons = {}
    repaired = 0
    for field, name in carried_names(carried, recipe):
        declared = name in recipe.row_schema.declared_types
        column = table[name] if name in table.column_names else null_column(table.num_rows)
        unfit: Reasons = {}
        if name in rows.microseconds.column_names:
            column, unfit = moments(column, rows.microseconds[name], field, name, declared, uri)
        if is_unknown(field) and column.null_count < len(column):
            raise WrongType(f"{uri}: column {name!r} holds {column.type}, and nothing in the objects before", name)
        convert = partial(
            conversion.convert_column,
            field=field,
            name=name,
            allowed=conversion.may_cast if declared else conversion.same_meaning,
            where=uri,
            object_rows=object_rows,
        )
        if holds_json_text(field):  # an invalid value has no text
            column, invalid, bad_rows = valid_values(conversion.plain_column(column), field, name)
            column = convert(column)
        else:  # text that is not UTF-8 has bytes
            column, invalid, bad_rows = valid_values(convert(column), field, name)
        columns.append(column)
        repaired = max(repaired, bad_rows)
        reasons = unfit | invalid | reasons
    rows_in_types = pa.Table.from_arrays(columns, schema=nullable_schema(carried))
    texts = [text_values(table, name) for name in recipe.vector_key.text_columns]
    return RowColumns(rows_in_types, texts, reasons, repaired)


def valid_values(column: pa.ChunkedArray, field: pa.Field, name: str) -> tuple[pa.ChunkedArray, Reasons, int]:
    """The column without invalid values, the rows of those of an id, and the number of rows of a kept column that had some."""
    if field.name == "id":
        return *invalid_values.null_invalid(column, name), 0
    column, bad_rows = invalid_values.repair(column)
    return column, {}, bad_rows


def null_column(rows: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.nulls(rows)])


def moments(
    column: pa.ChunkedArray, microseconds: pa.ChunkedArray, field: pa.Field, name: str, declared: bool, uri: str
) -> tuple[pa.ChunkedArray, Reasons]:
    """A column with INT96 timestamps in a unit that holds them all, and the rows of those that a declared type does not hold.

    Raises WrongType where no unit does."""
    rows = int96.overflow(column, microseconds)
    if not rows:
        return column, {}
    if declared and not holds_json_text(field):
        return int96.null_overflow(column, microseconds, name, rows)
    inside = invalid_values.null_rows(column, rows)
    if holds_json_text(field):
        texts = [
            conversion.convert_column(each, field, name, conversion.may_cast, uri, range(len(each))) for each in (inside, microseconds)
        ]
        return pc.if_else(pa.array(np.isin(np.arange(len(column)), rows)), texts[1], texts[0]), {}
    if plain_type(microseconds.type) != field.type:
        raise WrongType(f"{uri}: column {name!r} holds times outside the years 1677 to 2262, which {field.type} does not hold", name)
    conversion.convert_column(inside, field, name, conversion.may_cast, uri, range(len(inside)))  # raises where microseconds lose digits
    return microseconds, {}


def text_values(table: pa.Table, name: str) -> list[Any]:
    """The values of a column; raw bytes where a string column contains bytes that are not UTF-8; null where there is no column."""
    if name not in table.column_names:
        return [None] * table.num_rows
    column = table[name]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        raw = pa.large_binary()
        values = column.cast(pa.large_list(raw) if pa.types.is_nested(column.type) else raw).to_pylist()
    return values


def json_columns(rows: JsonRows, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    values, reasons = rows.values, dict(rows.reasons)
    repaired = sum(is_repaired(values[number], recipe, number, reasons) for number in rows.lax)
    columns = {name: [row.get(name) for row in values] for name in recipe.source_columns}
    return typed_columns(columns, json_values.typed_array, reasons, repaired, recipe, carried)


def typed_columns(
    columns: Mapping[str, list[Any]], typed: Typed, reasons: Reasons, repaired: int, recipe: Recipe, carried: pa.Schema
) -> RowColumns:
    """The columns of rows without types. `columns`: n values for each column of the run; `reasons`: of rows that are no rows."""
    arrays: list[pa.Array] = []
    misfits: dict[str, tuple[int, str]] = {}
    for field, name in carried_names(carried, recipe):
        array, unfit = typed(columns[name], field, name)
        arrays.append(array)
        reasons = unfit | reasons
        misfit = first_misfit(columns[name], field, name, unfit)
        if misfit is not None and name not in recipe.row_schema.declared_types:
            misfits[name] = misfit
    table = pa.Table.from_arrays(arrays, schema=nullable_schema(carried))
    return RowColumns(table, [columns[name] for name in recipe.vector_key.text_columns], reasons, repaired, misfits)


def first_misfit(column: Sequence[Any], field: pa.Field, name: str, unfit: Reasons) -> tuple[int, str] | None:
    """The first value that does not fit: its row, and what it is; None where all fit.

    A column without any value so far has no type that could hold one. JSON text holds every value but those that are nested too deeply."""
    if is_unknown(field):
        row = next((row for row, value in enumerate(column) if value is not None), None)
        return None if row is None else (row, json_values.value_text(name, column[row]))
    wrong = ((row, detail.partition(";")[0]) for row, (reason, detail) in unfit.items() if reason == "wrong_type")
    return None if holds_json_text(field) else next(wrong, None)


def is_repaired(row: dict[str, Any], recipe: Recipe, number: int, reasons: Reasons) -> bool:
    """Whether a column of the row has U+FFFD for what is no Unicode. Ids are not repaired, nor texts with bytes that are not UTF-8."""
    id_column, texts = recipe.row_schema.id_column, recipe.vector_key.text_columns
    damaged = {name: found for name in recipe.source_columns if (found := lax_json.replaced_in(row.get(name)))}
    undecodable = [name for name, found in damaged.items() if name == id_column or (name in texts and found.are_bytes)]
    for name in undecodable[:1]:
        reasons[number] = ("undecodable", f"{name} is {str(damaged[name])[:50]!r}, not UTF-8")
        row[id_column] = None if name == id_column else row.get(id_column)
    return bool(damaged) and not undecodable


def text_columns(rows: TextRows, recipe: Recipe, carried: pa.Schema) -> RowColumns:
    """Bytes that are not UTF-8 stay in ids and texts, whose rows are rejects, and are U+FFFD in kept columns."""
    columns: dict[str, list[Any]] = {}
    repaired = 0
    for name in recipe.source_columns:
        columns[name] = values = list(rows.columns.get(name, [None] * len(rows)))
        n_bytes = sum(isinstance(value, bytes) for value in values)
        if n_bytes and name in recipe.row_schema.keep_columns and name not in recipe.vector_key.text_columns:
            repaired = max(repaired, n_bytes)
            columns[name] = [value.decode(errors="replace") if isinstance(value, bytes) else value for value in values]
    return typed_columns(columns, typed_texts, dict(rows.reasons), repaired, recipe, carried)


def carried_names(carried: pa.Schema, recipe: Recipe) -> Iterator[tuple[pa.Field, str]]:
    """Each field of the id and the kept columns, with its name in the source."""
    for field in carried:
        yield field, recipe.row_schema.id_column if field.name == "id" else field.name


def nullable_schema(carried: pa.Schema) -> pa.Schema:
    return pa.schema([field.with_nullable(True) for field in carried])
