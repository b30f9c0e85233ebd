"""Source objects and a configuration -> the columns that a run carries from the source, and their types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.config.recipe import Recipe, RowSchema
from bulkembed.errors import ConfigError, ObjectError, SourceError
from bulkembed.formats.format import require_names
from bulkembed.formats.paths import with_paths
from bulkembed.records import LongDocuments
from bulkembed.scans import Layout
from bulkembed.source import json_columns
from bulkembed.source.column_types import (
    LISTS,
    fill_unknown,
    has_null,
    holds_json_text,
    json_text_field,
    may_hold_text,
    parse_arrow_type,
    plain_type,
)
from bulkembed.source.documents import LIST_HINT, LIST_POLICIES
from bulkembed.source.layout import layout_of
from bulkembed.source.live_files import require_table_columns
from bulkembed.source.objects import SourceObject
from bulkembed.storage.store import Store

MAX_OBJECTS = 16  # objects that are opened to find the first value of a column


def carried_columns(store: Store, objects: Iterable[SourceObject], recipe: Recipe, place: str) -> pa.Schema:
    """The schema of the id and the kept columns. `place`: the source.

    The types are those in `column_types`, else those of the first object that has values of the column.

    A column that is null in the first MAX_OBJECTS objects is text. Raises SourceError where they lack a column."""
    rows, names = recipe.row_schema, recipe.source_columns
    asked = asked_fields(rows)
    fields: dict[str, pa.Field] = {}
    first: tuple[SourceObject, pa.Schema] | None = None
    for item, source in islice(readable_objects(store, objects, recipe, place), MAX_OBJECTS):
        first = first or (item, source)
        for name in names:
            if name in source.names:
                fields[name] = merge_fields(fields.get(name), source.field(name))
        if all(is_settled(name, fields, rows) for name in names):
            break
    missing = tuple(name for name in names if name not in fields and not is_settled(name, fields, rows))
    if first and missing:
        try:
            require_names(first[1].names, missing, first[0].uri)
        except ObjectError as error:
            raise SourceError(str(error)) from None
    fields |= asked
    carried = [json_text_field(name) if pa.types.is_null(fields[name].type) else fields[name] for name in rows.carried_columns]
    return output_columns(pa.schema(carried), rows.id_column, rows.keep_columns)


def merge_fields(known: pa.Field | None, new: pa.Field) -> pa.Field:
    """The field as earlier objects have it. The parts in which they hold no value are as in this object."""
    if known is None or pa.types.is_null(known.type):
        return new
    return known.with_type(fill_unknown(known.type, new.type))


def is_settled(name: str, fields: dict[str, pa.Field], rows: RowSchema) -> bool:
    """Whether more objects would tell nothing new about the column."""
    if name in rows.declared_types:
        return name in fields or name in rows.keep_columns
    carried = name in rows.carried_columns
    return name in fields and not (carried and has_null(fields[name].type))


def asked_fields(rows: RowSchema) -> dict[str, pa.Field]:
    """The fields that `column_types` names. A column of type string takes every value of JSON, as text."""
    fields: dict[str, pa.Field] = {}
    for name, kind in rows.declared_types.items():
        if name not in rows.carried_columns:
            raise ConfigError(f"column_types: {name!r} is neither the id nor a kept column")
        arrow = parse_arrow_type(kind, f"column_types.{name}")
        fields[name] = json_text_field(name) if pa.types.is_string(arrow) else pa.field(name, arrow)
    return fields


def readable_objects(store: Store, objects: Iterable[SourceObject], recipe: Recipe, place: str) -> Iterator[tuple[SourceObject, pa.Schema]]:
    """The objects that hold rows, with their columns.

    Raises SourceError where no object has rows, and where the first one is a Parquet file without a column of the configuration:
    that is taken for a mistake in the configuration."""
    problem = no_rows(place)
    any_object = False
    for item in objects:
        try:
            source, layout, has_rows = open_columns(store, item, recipe)
        except ObjectError as error:
            problem = SourceError(str(error))
            continue
        if not has_rows:
            continue
        if not any_object and layout is not None:
            try:
                require_columns(recipe, item, layout)
            except ObjectError as error:
                raise SourceError(str(error)) from None
        any_object = True
        yield item, source
    if not any_object:
        raise problem


def open_columns(store: Store, item: SourceObject, recipe: Recipe) -> tuple[pa.Schema, Layout | None, bool]:
    """The columns of an object, the layout of a Parquet file, and whether it has rows. Raises ObjectError."""
    if item.format == "jsonl":
        columns = json_columns.columns_of(store, item, recipe.source_columns)
        return columns.schema, None, columns.has_rows
    layout = layout_of(store, item, recipe.vector_key.text_columns)
    return with_paths(layout.schema or pa.schema([]), recipe.source_columns), layout, layout.rows > 0


def no_rows(source: str) -> SourceError:
    return SourceError(f"source {source}: its objects hold no rows")


def require_columns(recipe: Recipe, item: SourceObject, layout: Layout) -> None:
    """Raises ObjectError where an object lacks a column, or has a text column that is no text. JSON rows are checked one by one."""
    if layout.schema is not None and layout.rows:
        require_in_schema(recipe, item, layout.schema)


def require_in_schema(recipe: Recipe, item: SourceObject, source: pa.Schema) -> None:
    """Raises ObjectError as `require_columns` does. `source`: the columns of an object that has rows."""
    if item.table:
        require_table_columns(item.table.columns, recipe.source_columns, source, item.uri)
    source = with_paths(source, recipe.source_columns)
    require_names(source.names, recipe.source_columns, item.uri)
    for name in recipe.vector_key.text_columns:
        require_text(source.field(name), recipe.vector_key.long_documents, item.uri)


def require_text(field: pa.Field, policy: LongDocuments, uri: str) -> None:
    """Raises ObjectError where a text column is neither text nor, under a policy that makes chunks of it, a list of strings."""
    is_list = isinstance(field.type, LISTS) and may_hold_text(field.type.value_type)
    if not (may_hold_text(field.type) or (is_list and policy in LIST_POLICIES)):
        hint = f"; {LIST_HINT}" if is_list else ""
        raise ObjectError(f"{uri}: text column {field.name!r} has type {field.type}, not text{hint}")


def output_columns(source: pa.Schema, id_column: str, keep_columns: tuple[str, ...]) -> pa.Schema:
    """The id (renamed `id`) and the kept columns as they go into the output. Raises ConfigError for a type that cannot."""
    id_type = plain_type(source.field(id_column).type)
    values = id_type.storage_type if isinstance(id_type, pa.BaseExtensionType) else id_type
    if pa.types.is_nested(values) or pa.types.is_null(values):
        raise ConfigError(f"id_column: {id_column!r} has type {id_type}, not a scalar")
    fields = [output_field("id", source.field(id_column)).with_nullable(False)]
    fields += [output_field(name, source.field(name)) for name in keep_columns]
    keys = ("id_column", *("keep_columns" for _ in keep_columns))
    for key, name, field in zip(keys, (id_column, *keep_columns), fields, strict=True):
        require_storable(key, name, field)
    return pa.schema(fields)


def output_field(name: str, field: pa.Field) -> pa.Field:
    return json_text_field(name) if holds_json_text(field) else pa.field(name, plain_type(field.type))


def require_storable(key: str, name: str, field: pa.Field) -> None:
    """Raises ConfigError where Parquet has no such type (a struct without fields), or where Arrow cannot take single rows of it."""
    try:
        empty = schema.empty_table(pa.schema([field]))
        pq.write_table(empty, pa.BufferOutputStream())
        empty.take(pa.array([], pa.int64()))
    except (pa.ArrowException, OSError) as error:
        raise ConfigError(
            f"{key}: {name!r} has type {field.type}, which Arrow cannot write to Parquet row by row ({str(error).splitlines()[0]}); name "
            f'another column, or for JSON lines set column_types.{name} = "string", which takes any value as text'
        ) from None
