"""Columns by path: `doc.body` is the field `body` of the column `doc`. A column whose own name is `doc.body` comes first. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

Path = tuple[str, ...]  # the name of a column, then names of fields within it
Row = dict[str, Any]  # of JSON


def path_of(fields: pa.Schema | pa.StructType, name: str) -> Path | None:
    """Where the values of a column are; None where there is no such column, and no struct with such a field.

    Names may hold dots themselves: the longest name that fits comes first."""
    kinds = {field.name: field.type for field in fields}
    if name in kinds:
        return (name,)
    for head, rest in cuts(name):
        if head in kinds and pa.types.is_struct(kinds[head]):
            below = path_of(kinds[head], rest)
            if below is not None:
                return (head, *below)
    return None


def paths_of(source: pa.Schema, names: Iterable[str]) -> dict[str, Path]:
    """The path of each of these columns that the schema has."""
    found = {name: path_of(source, name) for name in names}
    return {name: path for name, path in found.items() if path is not None}


def cuts(name: str) -> Iterator[tuple[str, str]]:
    """(what stands before a dot, what stands behind it) for each dot, the last one first."""
    at = name.rfind(".")
    while at >= 0:
        yield name[:at], name[at + 1 :]
        at = name.rfind(".", 0, at)


def field_at(source: pa.Schema, name: str, path: Path) -> pa.Field:
    """The field at a path, under the name of the column."""
    field = source.field(source.names.index(path[0]))
    for part in path[1:]:
        field = field.type.field(part).with_nullable(True)
    return field.with_name(name)


def with_paths(source: pa.Schema, names: Iterable[str]) -> pa.Schema:
    """The schema with a field more for each of these columns that lies within another one."""
    paths = paths_of(source, names)
    return pa.schema([*source, *(field_at(source, name, path) for name, path in paths.items() if len(path) > 1)])


def schema_at(source: pa.Schema, paths: Mapping[str, Path]) -> pa.Schema:
    """The schema of the columns at these paths."""
    return pa.schema([field_at(source, name, path) for name, path in paths.items()])


def columns_at(batch: pa.RecordBatch, paths: Mapping[str, Path], schema: pa.Schema) -> pa.RecordBatch:
    """The columns at these paths, by their names. `schema`: theirs."""
    return pa.RecordBatch.from_arrays([array_at(batch, path) for path in paths.values()], schema=schema)


def array_at(batch: pa.RecordBatch, path: Path) -> pa.Array:
    """The values at a path. They are null where a struct around them is."""
    array = batch.column(batch.schema.names.index(path[0]))
    return pc.struct_field(array, list(path[1:])) if len(path) > 1 else array


def below(leaf: str, columns: Iterable[str]) -> bool:
    """Whether a leaf of a file belongs to one of these columns. Both are paths, joined with dots."""
    return any(leaf == column or leaf.startswith(f"{column}.") for column in columns)


def dotted(names: Iterable[str]) -> list[str]:
    """Those of these names that may be paths."""
    return [name for name in names if "." in name]


def add_values(rows: Iterable[Row], names: Sequence[str]) -> None:
    """Gives each row the values of these columns that lie within others, by the names of the columns."""
    paths = dotted(names)
    for row in rows if paths else ():
        for name in paths:
            if name not in row:
                is_there, value = value_at(row, name)
                if is_there:
                    row[name] = value


def value_at(row: Any, name: str) -> tuple[bool, Any]:
    """Whether a row of JSON has a value at a path, and the value."""
    if not isinstance(row, dict):
        return False, None
    if name in row:
        return True, row[name]
    for head, rest in cuts(name):
        is_there, value = value_at(row.get(head), rest)
        if is_there:
            return True, value
    return False, None


def heads(names: Iterable[str]) -> list[str]:
    """The names of all columns that these paths may begin with, themselves among them."""
    return list(dict.fromkeys(head for name in names for head in (name, *(head for head, _ in cuts(name)))))
