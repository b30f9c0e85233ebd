"""Source objects and a configuration -> the columns that a run carries from the source, and their types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.config.recipe import Recipe, RowSchema
from bulkembed.errors import ConfigError, ObjectError, SourceError
from bulkembed.formats.format import no_column, require_names
from bulkembed.formats.paths import with_paths
from bulkembed.records import LongDocuments
from bulkembed.scans import Layout
from bulkembed.source import json_columns
from bulkembed.source.column_types import (
    extension_of,
    holds_json_text,
    is_unknown,
    json_text_field,
    may_hold_text,
    parse_arrow_type,
    plain_type,
    stored_type,
    unknown_field,
    without_unknown,
)
from bulkembed.source.documents import LIST_HINT, LIST_POLICIES
from bulkembed.source.json_text import has_json
from bulkembed.source.layout import table_columns
from bulkembed.source.live_files import require_table_columns
from bulkembed.source.objects import SourceObject
from bulkembed.source.place_columns import is_made_id, names_of_place, refuse_mixed_ids, refuse_repeated_paths, with_place_fields
from bulkembed.source.type_union import union
from bulkembed.storage.store import Store
from bulkembed.value_encoding import LISTS

MAX_SAMPLED = 16  # objects without a footer whose first rows are read
THREADS = 16  # they wait for the store, and compute little


def carried_columns(store: Store, objects: Iterable[SourceObject], recipe: Recipe, place: str) -> pa.Schema:
    """The schema of the id and the kept columns. `place`: the source.

    The types are those in `column_types`, else types that hold the values of all footers, and of the first rows of objects without a
    footer. Reading all rows may widen these: see widening. Raises SourceError where none of these objects has a column."""
    rows, names = recipe.row_schema, recipe.source_columns
    undeclared = set(rows.carried_columns) - rows.declared_types.keys()
    fields: dict[str, pa.Field] = {}
    origins: dict[str, str] = {}
    first: tuple[SourceObject, pa.Schema] | None = None
    objects = list(objects)
    refuse_repeated_paths((item.relative_path for item in objects), rows)
    origins_of_ids: dict[bool, str] = {}
    for item, source in readable_objects(store, looked_at(objects), recipe, place):
        first = first or (item, source)
        refuse_mixed_ids(source, item.uri, rows, origins_of_ids)
        if item.format != "jsonl" and item is first[0]:
            refuse_mistake(recipe, item, source)
        for name in names:
            if name in undeclared and name in source.names:
                fields[name] = merge_fields(fields.get(name), source.field(name), origins.get(name, ""), item.uri)
                origins.setdefault(name, item.uri)
            elif name in source.names:
                fields[name] = source.field(name)
    missing = tuple(name for name in names if name not in fields and not (name in rows.declared_types and name in rows.keep_columns))
    if first and missing:
        hint = unseen_hint(missing[0], len(objects) - len(looked_at(objects))) if missing[0] in rows.keep_columns else ""
        raise SourceError(no_column(first[0].uri, missing[0], first[1].names) + hint)
    fields |= asked_fields(rows)
    return output_columns([fields[name] for name in rows.carried_columns], rows)


def unseen_hint(name: str, unseen: int) -> str:
    """What to do where only objects that were not looked at have a column. `unseen`: how many these are."""
    text = f'; {unseen:,} more objects were not looked at: if they have it, set column_types.{name} = "string", or its type'
    return text if unseen else ""


def refuse_mistake(recipe: Recipe, item: SourceObject, source: pa.Schema) -> None:
    """Raises SourceError where the first table has no id, or no text: that is taken for a mistake in the configuration."""
    try:
        require_in_schema(recipe, item, source)
    except ObjectError as error:
        raise SourceError(str(error)) from None


def looked_at(objects: list[SourceObject]) -> list[SourceObject]:
    """All objects with a footer, and some of the others, from all over the source."""
    others = [item for item in objects if item.format != "parquet"]
    sampled = {others[number * len(others) // MAX_SAMPLED].id for number in range(MAX_SAMPLED)} if others else set[str]()
    return [item for item in objects if item.format == "parquet" or item.id in sampled]


def merge_fields(known: pa.Field | None, new: pa.Field, known_from: str = "", new_from: str = "") -> pa.Field:
    """A field that holds the values of both: of their common type, else JSON text.

    Raises ConfigError that names the objects where there is neither."""
    if known is None or pa.types.is_null(known.type) or is_unknown(known):
        return new
    if pa.types.is_null(new.type) or is_unknown(new):
        return known
    if not holds_json_text(known) and not holds_json_text(new):
        kind = union(known.type, new.type)
        if kind is not None:
            return (known if extension_of(known) == extension_of(new) else known.remove_metadata()).with_type(kind)
    for field in (known, new):
        if not holds_json_text(field) and not has_json(field.type):
            raise ConfigError(
                f"column {new.name!r} has type {known.type} in {known_from}, and {new.type} in {new_from}: no type holds both, and "
                f"{field.type} has no JSON; convert the files, or do without the column"
            )
    return json_text_field(new.name)


def asked_fields(rows: RowSchema) -> dict[str, pa.Field]:
    """The fields that `column_types` names. A column of type string takes every value of JSON, as text."""
    fields: dict[str, pa.Field] = {}
    for name, kind in rows.declared_types.items():
        if name not in rows.carried_columns:
            raise ConfigError(f"column_types: {name!r} is neither the id nor a kept column")
        arrow = parse_arrow_type(kind, f"column_types.{name}")
        fields[name] = json_text_field(name) if pa.types.is_string(arrow) else pa.field(name, arrow)
    return fields


def readable_objects(store: Store, objects: Sequence[SourceObject], recipe: Recipe, place: str) -> Iterator[tuple[SourceObject, pa.Schema]]:
    """The objects that hold rows, with their columns. Raises SourceError where none has rows."""

    def open_one(item: SourceObject) -> pa.Schema | ObjectError | None:
        try:
            return open_columns(store, item, recipe)
        except ObjectError as error:
            return error

    problem = no_rows(place)
    any_object = False
    with ThreadPoolExecutor(THREADS) as pool:
        for item, found in zip(objects, pool.map(open_one, objects), strict=True):
            if isinstance(found, ObjectError):
                problem = SourceError(str(found))
            elif found is not None:
                any_object = True
                yield item, found
    if not any_object:
        raise problem


def open_columns(store: Store, item: SourceObject, recipe: Recipe) -> pa.Schema | None:
    """The columns of an object; None where it has no rows. Raises ObjectError."""
    if item.format == "jsonl":
        given = names_of_place(item.relative_path, recipe.row_schema)  # nobody looks for these in all rows
        columns = json_columns.columns_of(store, item, [name for name in recipe.source_columns if name not in given])
        return with_place_fields(columns.schema, item.relative_path, recipe.row_schema) if columns.has_rows else None
    source = table_columns(store, item, recipe.source_columns)
    return None if source is None else named_schema(source, item, recipe)


def named_schema(source: pa.Schema, item: SourceObject, recipe: Recipe) -> pa.Schema:
    """The columns of an object, with fields within them and columns of its place that the run reads."""
    return with_place_fields(with_paths(source, recipe.source_columns), item.relative_path, recipe.row_schema)


def no_rows(source: str) -> SourceError:
    return SourceError(f"source {source}: its objects hold no rows")


def require_columns(recipe: Recipe, item: SourceObject, layout: Layout) -> None:
    """Raises ObjectError where an object lacks a column, or has a text column that is no text. JSON rows are checked one by one."""
    if layout.schema is not None and layout.rows:
        require_in_schema(recipe, item, layout.schema)


def require_in_schema(recipe: Recipe, item: SourceObject, source: pa.Schema) -> None:
    """Raises ObjectError as `require_columns` does. `source`: the columns of an object that has rows.

    A kept column may be missing, and a text column where another one is there."""
    if item.table:
        require_table_columns(item.table.columns, recipe.source_columns, source, item.uri)
    source = named_schema(source, item, recipe)
    texts = recipe.vector_key.text_columns
    present = tuple(name for name in texts if name in source.names) or texts
    kept = tuple(name for name in recipe.row_schema.keep_columns if name in source.names)
    require_names(source.names, (recipe.row_schema.id_column, *present, *kept), item.uri)
    for name in present:
        require_text(source.field(name), recipe.vector_key.long_documents, item.uri)


def require_text(field: pa.Field, policy: LongDocuments, uri: str) -> None:
    """Raises ObjectError where a text column is neither text nor, under a policy that makes chunks of it, a list of strings."""
    is_list = isinstance(field.type, LISTS) and may_hold_text(field.type.value_type)
    if not (may_hold_text(field.type) or (is_list and policy in LIST_POLICIES)):
        hint = f"; {LIST_HINT}" if is_list else ""
        raise ObjectError(f"{uri}: text column {field.name!r} has type {field.type}, not text{hint}")


def output_columns(fields: Sequence[pa.Field], rows: RowSchema) -> pa.Schema:
    """The id (renamed `id`) and the kept columns as they go into the output. `fields`: by their names in the source.

    What Parquet cannot hold is JSON text. Raises ConfigError for a type that cannot be written at all."""
    by_name = {field.name: output_field(field, rows) for field in fields}
    id_field = by_name[rows.id_column]
    if pa.types.is_nested(storage_of(id_field.type)):
        raise ConfigError(f"id_column: {rows.id_column!r} has type {id_field.type}, not a scalar")
    return pa.schema([id_field.with_name("id").with_nullable(False), *(by_name[name] for name in rows.keep_columns)])


def storage_of(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def output_field(field: pa.Field, rows: RowSchema) -> pa.Field:
    if is_made_id(field):
        return field
    if pa.types.is_null(field.type):
        return unknown_field(field.name)
    if holds_json_text(field):
        return field
    kind = without_unknown(plain_type(field.type))
    plain = pa.field(field.name, kind if field.name in rows.declared_types else stored_type(kind), metadata=extension_of(field))
    problem = storing_problem(plain)
    if problem is None:
        return plain
    if field.name not in rows.declared_types and field.name != rows.id_column and has_json(plain.type):
        return unknown_field(field.name)  # other objects may know more of its type
    key = "id_column" if field.name == rows.id_column else "keep_columns"
    raise ConfigError(f"{key}: {field.name!r} has type {field.type}, which Arrow cannot write to Parquet row by row ({problem})")


def storing_problem(field: pa.Field) -> str | None:
    """Why Parquet has no such type (a struct without fields), or why Arrow cannot take single rows of it; None where all is well."""
    try:
        empty = schema.empty_table(pa.schema([field]))
        pq.write_table(empty, pa.BufferOutputStream())
        empty.take(pa.array([], pa.int64()))
    except (pa.ArrowException, OSError) as error:
        return str(error).splitlines()[0]
    return None
