"""What a table says of its files: which are live, which of their rows are deleted, and where its columns stand in them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.errors import ObjectError, SourceError
from bulkembed.storage.listing import Listing

FIELD_ID = b"PARQUET:field_id"
Rows = npt.NDArray[np.int64]


class UnreadableTable(SourceError):
    """A table whose live rows this process cannot tell."""


@dataclass(frozen=True)
class TableColumns:
    """How a table's columns stand in its files, by name."""

    renamed: Mapping[str, str] = field(default_factory=dict)  # columns that files hold under another name, and why they are not read
    outside: Mapping[str, str] = field(default_factory=dict)  # columns that a file may lack though they have values, and why
    field_ids: Mapping[str, int] = field(default_factory=dict)  # of Iceberg, also of nested fields, whose names have dots


@dataclass(frozen=True, eq=False)
class TableFile:
    """What a table says of one of its live files."""

    dead_rows: Rows  # ascending: rows of the file that were deleted
    columns: TableColumns


@dataclass(frozen=True, eq=False)
class Table:
    """One version of a table."""

    name: str  # the version and the format, for people
    folder: str
    files: Mapping[str, Rows]  # live files by their path below the folder, and the deleted rows of each
    columns: TableColumns
    listing: Listing  # what is in the folder
    deletes: Collection[str] = ()  # files that only name deleted rows, by their path below the folder


def require_table_columns(columns: TableColumns, names: Collection[str], schema: pa.Schema, uri: str) -> None:
    """Raises ObjectError where a column of the table cannot be had from a file. `schema`: of the file. A name may be a path: `doc.body`."""
    for column, reason in columns.renamed.items():
        if any(is_within(name, column) for name in names):
            raise ObjectError(f"{uri}: column {column!r} {reason}")
    for column, reason in columns.outside.items():
        if column in names and column not in schema.names:
            raise ObjectError(f"{uri}: column {column!r} {reason}")
    if columns.field_ids:
        require_same_fields(columns.field_ids, names, schema, uri)


def require_same_fields(field_ids: Mapping[str, int], names: Collection[str], schema: pa.Schema, uri: str) -> None:
    """Raises ObjectError where a column, or a field in it, has another name in the file than in the table."""
    in_file = {path: number for file_field in schema for path, number in nested_ids(file_field, file_field.name)}
    by_id = {number: path for path, number in in_file.items()}
    for path, number in field_ids.items():
        if not in_file or not any(is_within(path, name) or is_within(name, path) for name in names):
            continue
        if by_id.get(number, path) != path or in_file.get(path, number) != number:
            here = f"is called {by_id[number]!r} in this file" if number in by_id else "is another column in this file, which was dropped"
            raise ObjectError(f"{uri}: column {path!r} {here}; rewrite the table's data files (Spark: CALL system.rewrite_data_files)")


def is_within(path: str, other: str) -> bool:
    """Whether a path names a column, or a field within it."""
    return path == other or path.startswith(f"{other}.")


def nested_ids(file_field: pa.Field, path: str) -> Iterator[tuple[str, int]]:
    """The path and the id of a field and of all fields in it, as Iceberg names them."""
    if file_field.metadata and FIELD_ID in file_field.metadata:
        yield path, int(file_field.metadata[FIELD_ID])
    kind = file_field.type
    if pa.types.is_struct(kind):
        children = [(child, child.name) for child in kind]
    elif pa.types.is_map(kind):
        children = [(kind.key_field, "key"), (kind.item_field, "value")]
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        children = [(kind.value_field, "element")]
    else:
        children = []
    for child, name in children:
        yield from nested_ids(child, f"{path}.{name}")
