"""Columns that an object's place gives its rows: Hive parts of its path, and ids made of object and row.

dt=2026-11-26/lang=de/a.jsonl     dt and lang, for all rows
part-0.jsonl:17                   the id of row 17, with `id_column = "row"`
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from urllib.parse import unquote

import pyarrow as pa

from bulkembed.config.recipe import RowSchema
from bulkembed.errors import ConfigError, ObjectError, SourceError
from bulkembed.formats.rows import ArrowRows, JsonRows, Rows, TextRows

ROW = "row"  # the id column that stands for object and row number, where the source has no column of that name
MADE_ID = {b"bulkembed.values": b"object and row"}  # metadata of the field of such ids
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"


def hive_parts(path: str) -> dict[str, str | None]:
    """The values in the names of the folders of a path. Where a name comes twice, the deeper folder counts."""
    folders = (folder.partition("=") for folder in path.split("/")[:-1])
    return {unquote(name): None if value == HIVE_NULL else unquote(value) for name, sign, value in folders if sign and name}


def names_of_place(path: str, rows: RowSchema) -> set[str]:
    """The columns of a run that the place of an object may give."""
    made = {ROW} if rows.id_column == ROW else set[str]()
    return made | (hive_parts(path).keys() & set(rows.keep_columns))


def made_id_field(name: str) -> pa.Field:
    return pa.field(name, pa.string(), metadata=MADE_ID)


def is_made_id(field: pa.Field) -> bool:
    return dict(field.metadata or {}).items() >= MADE_ID.items()


def with_place_fields(source: pa.Schema, path: str, rows: RowSchema) -> pa.Schema:
    """The columns of an object, with those that its place gives. Its own columns come first."""
    names = sorted(names_of_place(path, rows).difference(source.names))
    return pa.schema([*source, *(made_id_field(ROW) if name == rows.id_column else pa.field(name, pa.string()) for name in names)])


def with_place_columns(rows: Rows, path: str, uri: str, schema: RowSchema, carried: pa.Schema, object_rows: Sequence[int]) -> Rows:
    """Rows of an object, with the columns that its place gives. A value of their own comes first.

    `schema`: the columns of the run; `object_rows`: where each row lies in the object. Raises ObjectError as `require_id_column` does."""
    made = is_made_id(carried.field("id"))
    if schema.id_column == ROW:
        require_id_column(rows, uri, made)
    given: dict[str, Sequence[str | None]] = {
        name: [value] * len(rows) for name, value in hive_parts(path).items() if name in schema.keep_columns
    }
    if made:
        given[ROW] = [f"{path}:{row}" for row in object_rows]
    match rows:
        case JsonRows():
            for name, values in given.items():
                for row, value in zip(rows.values, values, strict=True):
                    row.setdefault(name, value)
            return rows
        case TextRows():
            return replace(rows, columns=given | dict(rows.columns))
    table = rows.table
    for name, values in given.items():
        if name not in table.column_names:
            table = table.append_column(name, pa.array(values, pa.string()))
    return replace(rows, table=table)


def require_id_column(rows: Rows, uri: str, made: bool) -> None:
    """Raises ObjectError where `row` is a column of this object, and not of those that the line began with; or the other way round.

    Single rows of JSON without an id are rejects, as with any id column."""
    match rows:
        case JsonRows():
            differs = made and any(ROW in row for row in rows.values)
        case TextRows():
            differs = made == (ROW in rows.columns)
        case ArrowRows():
            differs = made == (ROW in rows.table.column_names)
    if differs:
        here, there = ("has a column", "had none") if made else ("has no column", "had one")
        raise ObjectError(
            f"{uri}: {here} {ROW!r}, and the objects that this line began with {there}; leave it out (exclude), or name another id_column"
        )


def refuse_repeated_paths(paths: Iterable[str], rows: RowSchema) -> None:
    """Raises ConfigError where two objects have one path below their places: ids made of path and row would repeat."""
    for path, count in Counter(paths).items() if rows.id_column == ROW else ():
        if count > 1:
            raise ConfigError(
                f"id_column: {ROW!r} makes ids of the object's path below the source, and {path} is below {count} places of the source; "
                "give a folder above them as the one source, or name an id column"
            )


def refuse_mixed_ids(source: pa.Schema, uri: str, rows: RowSchema, seen: dict[bool, str]) -> None:
    """Raises SourceError where `row` is a column of some objects only. `seen`: an object without it (True), one with it (False)."""
    if rows.id_column != ROW:
        return
    seen.setdefault(is_made_id(source.field(ROW)), uri)
    if len(seen) > 1:
        raise SourceError(
            f"id_column: {ROW!r} is a column of {seen[False]}, and not of {seen[True]}; leave one of them out (exclude), or name "
            "another id_column"
        )
