"""Which columns a run carries from the source, and their types."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa

from bulkembed import schema
from bulkembed.config.run_config import RunConfig
from bulkembed.errors import ConfigError, ObjectError, SourceError
from bulkembed.source import json_columns
from bulkembed.source.layout import Layout, layout_of
from bulkembed.source.objects import SourceObject
from bulkembed.storage.store import Store

MAX_OBJECTS = 16  # that are opened in search of a column's first value


def carried_schema(store: Store, objects: Iterable[SourceObject], cfg: RunConfig) -> pa.Schema:
    """The id and the kept columns, of the types in `column_types`, else those of the first object that has values.

    A column that is null in the first objects is text. Raises SourceError where they lack a column."""
    asked = asked_fields(cfg)
    found: dict[str, pa.Field] = {}
    first: tuple[SourceObject, pa.Schema] | None = None
    for item, source in islice(readable_objects(store, objects, cfg), MAX_OBJECTS):
        first = first or (item, source)
        for name in source_columns(cfg):
            if name in source.names:
                found[name] = merged(found.get(name), source.field(name))
        if all(is_settled(name, found, cfg) for name in source_columns(cfg)):
            break
    missing = tuple(name for name in source_columns(cfg) if name not in found and not is_settled(name, found, cfg))
    if first and missing:
        try:
            schema.require_columns(first[1].names, missing, first[0].uri)
        except ObjectError as error:
            raise SourceError(str(error)) from None
    found |= asked
    carried = dict.fromkeys((cfg.id_column, *cfg.keep_columns))  # the id may also be kept under its own name
    fields = [schema.json_text(name) if pa.types.is_null(found[name].type) else found[name] for name in carried]
    return schema.carried_schema(pa.schema(fields), cfg.id_column, cfg.keep_columns)


def source_columns(cfg: RunConfig) -> tuple[str, ...]:
    return tuple(dict.fromkeys((cfg.id_column, *cfg.text_columns, *cfg.keep_columns)))


def merged(known: pa.Field | None, new: pa.Field) -> pa.Field:
    """The field as the objects before have it, and where they hold no value as this one does."""
    if known is None or pa.types.is_null(known.type):
        return new
    return known.with_type(schema.filled(known.type, new.type))


def is_settled(name: str, found: dict[str, pa.Field], cfg: RunConfig) -> bool:
    """Whether more objects would tell nothing new of the column."""
    if name in cfg.column_types:
        return name in found or name in cfg.keep_columns
    carried = name in (cfg.id_column, *cfg.keep_columns)
    return name in found and not (carried and schema.has_null(found[name].type))


def asked_fields(cfg: RunConfig) -> dict[str, pa.Field]:
    """By `column_types`. A column of type string takes every value of JSON, as text."""
    fields: dict[str, pa.Field] = {}
    for name, kind in cfg.column_types.items():
        if name not in (cfg.id_column, *cfg.keep_columns):
            raise ConfigError(f"column_types: {name!r} is neither the id nor a kept column")
        arrow = schema.arrow_type(kind, f"column_types.{name}")
        fields[name] = schema.json_text(name) if pa.types.is_string(arrow) else pa.field(name, arrow)
    return fields


def readable_objects(store: Store, objects: Iterable[SourceObject], cfg: RunConfig) -> Iterator[tuple[SourceObject, pa.Schema]]:
    """The objects that hold rows, with their columns. Raises SourceError where there is none.

    A Parquet file that comes first and lacks a column is taken for a mistake in the configuration: SourceError too."""
    problem = no_rows(cfg.source)
    seen = 0
    for item in objects:
        try:
            if item.format == "jsonl":
                source, has_rows = json_columns.schema_of(store, item, source_columns(cfg))
            else:
                layout = layout_of(store, item)
                source, has_rows = layout.schema, layout.rows > 0
        except ObjectError as error:
            problem = SourceError(str(error))
            continue
        if not has_rows:
            continue
        if not seen and item.format == "parquet":
            try:
                require_columns(cfg, item, layout)
            except ObjectError as error:
                raise SourceError(str(error)) from None
        seen += 1
        yield item, source
    if not seen:
        raise problem


def no_rows(source: str) -> SourceError:
    return SourceError(f"source {source}: its objects hold no rows")


def require_columns(cfg: RunConfig, item: SourceObject, layout: Layout) -> None:
    """Raises ObjectError where a Parquet file lacks a column, or holds numbers where text is expected. JSON has a type a row."""
    if item.format != "parquet" or not layout.rows:
        return
    schema.require_columns(layout.schema.names, source_columns(cfg), item.uri)
    for name in cfg.text_columns:
        kind = layout.schema.field(name).type
        if not schema.is_text(kind):
            raise ObjectError(f"{item.uri}: text column {name!r} has type {kind}, not text")
