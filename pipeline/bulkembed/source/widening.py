"""Values that the types of a run do not hold -> wider types.

The types of a run are set by footers and first rows. Reading all rows can show more. Then the object is looked at once more, and the run
reads the source again in types that hold all that was found."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from bulkembed.config.recipe import Recipe, RowSchema
from bulkembed.errors import ConfigError
from bulkembed.scans import Scan
from bulkembed.source import json_columns
from bulkembed.source.column_types import has_name, holds_json_text, is_unknown, json_text_field, with_parts
from bulkembed.source.columns import merge_fields, output_columns, output_field
from bulkembed.source.conversion import WrongType
from bulkembed.source.json_text import has_json
from bulkembed.source.layout import table_columns
from bulkembed.source.objects import SourceObject
from bulkembed.source.scan import scan_object
from bulkembed.storage.store import Store


@dataclass(frozen=True)
class Misfits:
    """An object with values that the types of the run do not hold."""

    uri: str
    examples: dict[str, str]  # by column: where such a value is, and what it is
    needed: dict[str, pa.Field]  # by column: a field that holds the values of this object and what the run's type holds


def scan_or_misfits(store: Store, item: SourceObject, recipe: Recipe, carried: pa.Schema, rejected: Collection[str]) -> Scan | Misfits:
    """The scan of an object, if the types of the run hold its values. Raises ObjectError.

    `rejected`: columns whose rows are rejects where a value of JSON does not fit."""
    try:
        scan = scan_object(store, item, recipe, carried)
        examples = {name: example for name, example in scan.misfits.items() if name not in rejected}
    except WrongType as error:
        if error.column in recipe.row_schema.declared_types:
            raise
        examples = {error.column: str(error).removeprefix(f"{item.uri}: ")}
    else:
        if not examples:
            return scan
    return look_again(store, item, recipe, carried, examples)


def look_again(store: Store, item: SourceObject, recipe: Recipe, carried: pa.Schema, examples: Mapping[str, str]) -> Misfits:
    """The types that an object needs, by all of its rows. `examples`: of the columns that do not fit. Raises ObjectError."""
    source = all_columns(store, item, recipe.source_columns)
    needed: dict[str, pa.Field] = {}
    for name, field in source_fields(carried, recipe.row_schema).items():
        if name in recipe.row_schema.declared_types or name not in source.names:
            continue
        wider = merge_fields(field, source.field(name), "the other objects", item.uri)
        if wider.equals(field, check_metadata=True) and name in examples:
            wider = fallback(field, item.uri, examples[name])
        if name in examples or not wider.equals(field, check_metadata=True):
            needed[name] = wider
    return Misfits(item.uri, dict(examples), needed)


def all_columns(store: Store, item: SourceObject, names: Sequence[str]) -> pa.Schema:
    """The columns of an object, by all of its rows."""
    if item.format == "jsonl":
        return json_columns.all_columns_of(store, item, names).schema
    return table_columns(store, item, names) or pa.schema([])


def source_fields(carried: pa.Schema, rows: RowSchema) -> dict[str, pa.Field]:
    """The fields of the output by their names in the source."""
    fields = {name: carried.field(name) for name in rows.keep_columns}
    return {rows.id_column: carried.field("id").with_name(rows.id_column).with_nullable(True)} | fields


def fallback(field: pa.Field, uri: str, example: str) -> pa.Field:
    """The next field to try where the common type does not hold a value: whole microseconds, then JSON text."""
    coarser = in_microseconds(field.type)
    if coarser != field.type:
        return field.with_type(coarser)
    if not has_json(field.type):
        raise ConfigError(f"{uri}: {example}; no type holds all values of {field.name!r}; convert the files, or do without the column")
    return json_text_field(field.name)


def in_microseconds(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    return with_parts(kind, in_microseconds)


def widened(carried: pa.Schema, misfits: Sequence[Misfits], rows: RowSchema, tried: Sequence[pa.Schema]) -> pa.Schema:
    """The schema that holds what these objects need. `tried`: earlier ones, whose types are not tried again."""
    fields = source_fields(carried, rows)
    for name in fields:
        needed = [found.needed[name] for found in misfits if name in found.needed]
        if not needed:
            continue
        field = needed[0]
        for other in needed[1:]:
            field = merge_fields(field, other, misfits[0].uri, misfits[-1].uri)
        field = output_field(field, rows)
        was_tried = any(source_fields(earlier, rows)[name].equals(field, check_metadata=True) for earlier in tried)
        fields[name] = json_text_field(name) if was_tried else field
    return output_columns([fields[name] for name in rows.carried_columns], rows)


def merged(known: pa.Schema, found: pa.Schema, rows: RowSchema) -> pa.Schema:
    """The schema that holds what both hold."""
    fields, new = source_fields(known, rows), source_fields(found, rows)
    return output_columns([merge_fields(fields[name], new[name]) for name in rows.carried_columns], rows)


def text_columns(carried: pa.Schema, rows: RowSchema) -> list[str]:
    """The columns that are JSON text because no type holds their values, by their names in the source."""
    fields = source_fields(carried, rows).items()
    return [name for name, field in fields if holds_json_text(field) and not is_unknown(field) and name not in rows.declared_types]


def remedy(name: str, field: pa.Field) -> str:
    """The entry of the configuration that takes these values."""
    kind = str(field.type) if has_name(field.type) and not holds_json_text(field) else "string"
    return f'column_types.{name} = "{kind}"'
