"""An object of JSON lines -> its columns and their types, by its first rows or by all of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson
import pyarrow as pa

from bulkembed.formats import json_lines
from bulkembed.formats.lax_json import Numeral, Replaced
from bulkembed.formats.paths import add_values
from bulkembed.source.column_types import json_text_field
from bulkembed.source.layout import undamaged
from bulkembed.source.objects import SourceObject
from bulkembed.source.type_union import MAX_LEAVES
from bulkembed.storage.store import Store

SAMPLE_LINES = 1000
MAX_DEPTH = 32  # of lists and structs in a value; deeper ones are text
SIMPLE_TYPES: dict[tuple[str, ...], pa.DataType] = {(): pa.null(), ("bool",): pa.bool_(), ("text",): pa.string()}


@dataclass
class SeenValues:
    """What the values of a column, or of a part of it, have been so far."""

    kinds: set[str] = field(default_factory=set)  # bool, int, float, text, number, list, struct, deep (or wide); empty if all were null
    low: int = 0  # the least integer
    high: int = 0  # the greatest integer
    in_double: bool = True  # whether a double holds all integers
    items: SeenValues | None = None  # of lists
    fields: dict[str, SeenValues] = field(default_factory=dict)  # of structs

    def add(self, value: Any, depth: int = 0) -> None:
        match value:
            case None:
                return
            case list() | dict() if depth == MAX_DEPTH or len(self.fields) > MAX_LEAVES:
                self.kinds.add("deep")
            case list():
                self.kinds.add("list")
                self.items = self.items or SeenValues()
                for item in value:
                    self.items.add(item, depth + 1)
            case dict():
                self.kinds.add("struct")
                for key, item in value.items():
                    self.fields.setdefault(key, SeenValues()).add(item, depth + 1)
            case _:
                self.add_scalar(value)

    def add_scalar(self, value: bool | float | str | Numeral) -> None:
        match value:
            case bool():
                self.kinds.add("bool")
            case int():
                self.kinds.add("int")
                self.low, self.high = min(self.low, value), max(self.high, value)
                self.in_double = self.in_double and int(float(value)) == value
            case float():
                self.kinds.add("float")
            case Numeral():
                self.kinds.add("float" if value.in_double else "number")
            case str():
                self.kinds.add("text")

    def arrow_type(self) -> pa.DataType | None:
        """The type that holds all values: null if there were none, None if only text holds them."""
        match sorted(self.kinds):
            case ["int"]:
                kind = int_type(self.low, self.high)
            case ["float"] | ["float", "int"]:
                kind = pa.float64() if self.in_double else None
            case ["list"]:
                inner = self.items.arrow_type() if self.items else None
                kind = None if inner is None else pa.list_(inner)
            case ["struct"]:
                parts = [(name, part.arrow_type()) for name, part in self.fields.items()]
                known = [(name, part) for name, part in parts if part is not None]
                kind = pa.struct(known) if len(known) == len(parts) else None
            case kinds:
                kind = SIMPLE_TYPES.get(tuple(kinds))
        return kind


def int_type(low: int, high: int) -> pa.DataType | None:
    if high < 1 << 63:
        return pa.int64()
    return pa.uint64() if low >= 0 else None


@dataclass(frozen=True)
class JsonColumns:
    """The columns of an object of JSON lines. The type of a column without any value is null."""

    schema: pa.Schema
    has_rows: bool


def columns_of(store: Store, item: SourceObject, names: Sequence[str]) -> JsonColumns:
    """Reads the first SAMPLE_LINES rows, and more rows while one of the columns `names` is missing. Raises ObjectError."""
    return read_columns(store, item, lambda lines: sample_columns(lines, names))


def all_columns_of(store: Store, item: SourceObject, names: Sequence[str]) -> JsonColumns:
    """Reads all rows. `names`: columns that are looked for, also within others. Raises ObjectError."""

    def columns_of_lines(lines: Iterable[tuple[bytes, int]]) -> pa.Schema:
        seen: dict[str, SeenValues] = {}
        for line, length in lines:
            if length == len(line):
                add_line(line, seen, names)
        return schema_of(seen)

    return read_columns(store, item, columns_of_lines)


def read_columns(store: Store, item: SourceObject, columns_of_lines: Callable[[Iterable[tuple[bytes, int]]], pa.Schema]) -> JsonColumns:
    def read() -> JsonColumns:
        with json_lines.opened(item.in_store(store)) as index:
            columns = columns_of_lines(index.rows)
            return JsonColumns(columns, bool(index.part_rows))

    return undamaged(store, item, read)


def sample_columns(lines: Iterable[tuple[bytes, int]], names: Sequence[str]) -> pa.Schema:
    """The columns of the first rows. `lines`: with their lengths in bytes; it takes no more of them than it needs."""
    seen: dict[str, SeenValues] = {}
    spellings = {name: spellings_of(name) | spellings_of(name.rpartition(".")[2]) for name in names}
    parsed = 0
    for row, (line, length) in enumerate(lines):
        if row >= SAMPLE_LINES:
            missing = [name for name in names if name not in seen or (parsed < 2 * SAMPLE_LINES and not seen[name].kinds)]
            if not missing:
                break
            if not any(spelling in line for name in missing for spelling in spellings[name]):
                continue
        if length == len(line):
            parsed += 1
            add_line(line, seen, names)
    return schema_of(seen)


def schema_of(seen: dict[str, SeenValues]) -> pa.Schema:
    return pa.schema([column_field(name, values.arrow_type()) for name, values in seen.items()])


def column_field(name: str, kind: pa.DataType | None) -> pa.Field:
    return json_text_field(name) if kind is None else pa.field(name, kind)


def spellings_of(name: str) -> set[bytes]:
    """How JSON may spell a name."""
    return {orjson.dumps(name), json.dumps(name).encode()}


def add_line(line: bytes, seen: dict[str, SeenValues], names: Sequence[str]) -> None:
    """Notes the names in a line, and the values of the columns `names`, which may lie within others."""
    try:
        row, is_lax = json_lines.parse_line(line)
        if not is_lax and json_lines.may_lose_digits(line):
            row = json_lines.parse_exactly(line)
    except ValueError:  # the reader rejects this line and says why
        return
    if not isinstance(row, dict):
        return
    add_values([row], names)
    for name, value in row.items():
        known = seen.setdefault(name, SeenValues())
        if name in names and not isinstance(value, Replaced):  # no id, and in a kept column JSON text
            known.add(value)
