"""The columns of JSON lines and their types, by the first lines of an object."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import orjson
import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.source import json_lines
from bulkembed.source.column_types import json_text_field
from bulkembed.source.json_lines import Numeral
from bulkembed.source.objects import SourceObject
from bulkembed.storage.retry import CORRUPT, describe
from bulkembed.storage.store import Store, first_line, lines

SAMPLE_LINES = 1000
MAX_DEPTH = 32  # of lists and structs in a value; deeper ones are text
SIMPLE_TYPES: dict[tuple[str, ...], pa.DataType] = {(): pa.null(), ("bool",): pa.bool_(), ("text",): pa.string()}


@dataclass
class Held:
    """What a column, or a part of it, has held so far."""

    kinds: set[str] = field(default_factory=set)  # bool, int, float, text, number, list, struct, deep; empty where all was null
    low: int = 0
    high: int = 0
    in_double: bool = True  # all integers
    items: Held | None = None
    fields: dict[str, Held] = field(default_factory=dict)

    def add(self, value: Any, depth: int = 0) -> None:
        match value:
            case None:
                return
            case list() | dict() if depth == MAX_DEPTH:
                self.kinds.add("deep")
            case list():
                self.kinds.add("list")
                self.items = self.items or Held()
                for item in value:
                    self.items.add(item, depth + 1)
            case dict():
                self.kinds.add("struct")
                for key, item in value.items():
                    self.fields.setdefault(key, Held()).add(item, depth + 1)
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
        """The type that holds all of it, null where nothing is known; None where only text can."""
        match sorted(self.kinds):
            case ["int"]:
                found = int_type(self.low, self.high)
            case ["float"] | ["float", "int"]:
                found = pa.float64() if self.in_double else None
            case ["list"]:
                inner = self.items.arrow_type() if self.items else None
                found = None if inner is None else pa.list_(inner)
            case ["struct"]:
                parts = [(name, part.arrow_type()) for name, part in self.fields.items()]
                known = [(name, kind) for name, kind in parts if kind is not None]
                found = pa.struct(known) if len(known) == len(parts) else None
            case kinds:
                found = SIMPLE_TYPES.get(tuple(kinds))
        return found


def int_type(low: int, high: int) -> pa.DataType | None:
    if high < 1 << 63:
        return pa.int64()
    return pa.uint64() if low >= 0 else None


def schema_of(store: Store, item: SourceObject, columns: Sequence[str]) -> tuple[pa.Schema, bool]:
    """The columns of an object of JSON lines (type null: no value seen), and whether it has rows at all.

    Reads the first SAMPLE_LINES rows, and on for as long as one of `columns` is missing. Raises ObjectError."""

    def read() -> tuple[dict[str, Held], bool]:
        with store.open_lines(item.uri, item.version) as file:
            json_lines.require_lines(file, item.uri)
            return sampled(file, columns)

    try:
        held, any_rows = store.retrying(read, f"reading {item.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{item.uri}: not a readable {item.format} file: {describe(error)}") from error
    return pa.schema([column_field(name, each.arrow_type()) for name, each in held.items()]), any_rows


def column_field(name: str, kind: pa.DataType | None) -> pa.Field:
    return json_text_field(name) if kind is None else pa.field(name, kind)


def sampled(file: BinaryIO, columns: Sequence[str]) -> tuple[dict[str, Held], bool]:
    held: dict[str, Held] = {}
    spellings = {name: {orjson.dumps(name), json.dumps(name).encode()} for name in columns}
    rows = parsed = 0
    first_line(file)
    for line, length in lines(file):
        if line.isspace():
            continue
        rows += 1
        if rows > SAMPLE_LINES:
            wanted = [name for name in columns if name not in held or (parsed < 2 * SAMPLE_LINES and not held[name].kinds)]
            if not wanted:
                break
            if not any(spelling in line for name in wanted for spelling in spellings[name]):
                continue
        if length == len(line):
            parsed += 1
            add_line(line, held)
    return held, rows > 0


def add_line(line: bytes, held: dict[str, Held]) -> None:
    try:
        row = json_lines.parse_exactly(line) if json_lines.may_lose_digits(line) else json_lines.parse(line)
    except ValueError:  # the reader rejects that line with its reason
        return
    for name, value in row.items() if isinstance(row, dict) else ():
        held.setdefault(name, Held()).add(value)
