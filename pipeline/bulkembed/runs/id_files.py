"""A file of ids -> the ids in the type of a dataset: text with an id a line, or Parquet with a column of them."""

from __future__ import annotations

import re
import uuid
from collections.abc import Sequence

import pyarrow as pa

from bulkembed import schema
from bulkembed.errors import ConfigError
from bulkembed.source.conversion import Differs, convert_array, same_meaning
from bulkembed.storage.faults import CORRUPT, describe_error

INTEGER = re.compile(r"-?[0-9]+")


def parse_ids(data: bytes, name: str, column: str, kind: pa.DataType) -> pa.ChunkedArray:
    """The ids of a file in the type `kind`. Raises ConfigError that names the file and the line, or the type."""
    if is_parquet(data):
        return ids_of_parquet(data, name, column, kind)
    try:
        lines = [line.removesuffix("\r") for line in data.decode("utf-8-sig").split("\n")]
    except UnicodeDecodeError as error:
        raise ConfigError(f"ids: {name} is neither Parquet nor UTF-8 text: {error.reason} at byte {error.start}") from None
    return pa.chunked_array([ids_of_lines([(number, line) for number, line in enumerate(lines, 1) if line.strip()], name, kind)])


def is_parquet(data: bytes) -> bool:
    return data[:4] == b"PAR1" and data[-4:] == b"PAR1"


def ids_of_parquet(data: bytes, name: str, column: str, kind: pa.DataType) -> pa.ChunkedArray:
    try:
        table = schema.table_of(data)
    except CORRUPT as error:
        raise ConfigError(f"ids: {name} is no readable Parquet: {describe_error(error)}") from None
    if column not in table.column_names:
        raise ConfigError(f"ids_column: {name} has no column {column!r}, but {', '.join(table.column_names)}")
    if table[column].null_count:
        raise ConfigError(f"ids: {name}: column {column!r} has {table[column].null_count} null ids")
    try:
        return pa.chunked_array([convert_array(chunk, kind, column, same_meaning) for chunk in table[column].chunks], kind)
    except Differs as problem:
        raise ConfigError(f"ids: {name}: {problem.args[0]}; the ids of the dataset are {kind}") from None


def ids_of_lines(lines: Sequence[tuple[int, str]], name: str, kind: pa.DataType) -> pa.Array:
    """`lines`: number and text of each. An id of text is the whole line; other ids may have spaces around them."""
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pa.array([line for _, line in lines], kind)
    if not (pa.types.is_integer(kind) or is_uuid(kind)):
        raise ConfigError(f"ids: {name} is text, and the ids of the dataset are {kind}; give a Parquet file with a column of that type")
    values: list[int | bytes] = []
    for number, line in lines:
        try:
            values.append(parse_integer(line.strip(), kind) if pa.types.is_integer(kind) else uuid.UUID(line.strip()).bytes)
        except (ValueError, pa.ArrowException):
            raise ConfigError(f"ids: {name}: line {number}: {line.strip()[:60]!r} is no {kind}, the type of the dataset's ids") from None
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(values, kind.storage_type))
    return pa.array(values, kind)


def parse_integer(text: str, kind: pa.DataType) -> int:
    """Raises ValueError or ArrowInvalid where the text is no integer of this type."""
    if not INTEGER.fullmatch(text):
        raise ValueError(text)
    return int(pa.scalar(int(text), kind).as_py())


def is_uuid(kind: pa.DataType) -> bool:
    """Whether the ids are UUIDs: 16 bytes, with or without Arrow's own type for them."""
    return bool(kind == pa.uuid() or kind == pa.binary(16))
