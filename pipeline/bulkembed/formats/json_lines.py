"""JSON lines: one object a line. A line -> a row with exact numbers.

orjson turns an integer beyond 64 bits into a double, and also a decimal with more digits than a double holds. Two ids could then become
one. Lines that may hold such a number are therefore parsed again by Python's own parser.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from bulkembed.errors import ObjectError
from bulkembed.formats import lax_json
from bulkembed.formats.format import Format, ObjectVersion, Reading
from bulkembed.formats.lax_json import Numeral, exact_float, exact_int
from bulkembed.formats.paths import add_values, heads
from bulkembed.formats.rows import JsonRows
from bulkembed.formats.text_lines import MAX_LINE_BYTES, RowIndex, TextFile, batches_of, open_text, part_records, require_text
from bulkembed.records import Reasons
from bulkembed.scans import Layout
from bulkembed.shards import Part
from bulkembed.storage.compression import codec_of
from bulkembed.storage.store import Store

NUMERAL = re.compile(rb"[0-9.eE][0-9.eE+-]*")
MAY_HOLD_DOUBLES = {float, list, dict}  # Python types of values that may hold a double
NUMERAL_SHAPE = bytes.maketrans(b"123456789.E", b"0000000000e")
# A double holds every number of 15 digits, and loses digits below 1e-307.
LONG_NUMERAL, SMALL_NUMERAL = b"0" * 16, b"e-000"


def layout(place: ObjectVersion, text_columns: Sequence[str]) -> Layout:
    """The layout, which knows no columns: `text_columns` is not used. It reads the whole object."""
    with opened(place) as index:
        index.read_rest()
        return index.layout()


@contextmanager
def reading(place: ObjectVersion, names: Sequence[str], text_columns: Sequence[str]) -> Iterator[Reading]:
    with opened(place) as index:
        yield Reading(None, (rows_of_lines(batch, names) for batch in batches_of(index.rows)), index.layout)


@contextmanager
def opened(place: ObjectVersion) -> Iterator[RowIndex[bytes]]:
    """The lines of an object. Raises ObjectError where it holds JSON of another form."""
    with open_text(place.store, place.uri, place.version) as text:
        require_text(text, place.uri)
        require_lines(text, place.uri)
        yield RowIndex(text, text.lines, bytes.isspace, None)


def part_rows(store: Store, part: Part, names: Sequence[str], row_bytes: float) -> JsonRows:
    """The rows of a part. The lines between them are read and not parsed."""
    expected_bytes = int(row_bytes * (part.skip + part.stop - part.start))
    with open_text(store, part.uri, part.version, expected_bytes, part.offset) as text:
        not_blank = (line for line in text.lines if not line[0].isspace())
        return rows_of_lines(part_records(not_blank, part), names)


def rows_of_lines(lines: Iterable[tuple[bytes, int]], names: Sequence[str]) -> JsonRows:
    """The rows of lines that are not blank, with exact numbers in the columns `names`. `lines`: with their lengths in bytes."""
    parsed = parse_lines(lines, names)
    add_values(parsed.values, names)
    restore_digits(parsed, names)
    add_values(parsed.values, names)
    return JsonRows(parsed.values, parsed.reasons, parsed.lax)


def require_lines(text: TextFile, uri: str) -> None:
    """Raises ObjectError where a file starts with a JSON array, or with an object that continues on the next line."""
    first, line_end, _ = text.file.peek(1).lstrip().partition(text.line_end)
    first = first.rstrip()
    # In a file named .jsonl, a line that starts with a bracket is a bad row, unless it is clearly the start of an array.
    is_array = first.startswith(b"[") and (codec_of(uri)[0].endswith(".json") or first == b"[" or first.endswith(b","))
    if is_array or (line_end and first == b"{"):
        kind, command = ("JSON array", "jq -c '.[]'") if is_array else ("JSON object over several lines", "jq -c")
        raise ObjectError(f"{uri}: is one {kind}, not JSON lines; write one object a line, as {command} does, or name a source without it")


@dataclass(frozen=True)
class ParsedLines:
    """n lines of JSON."""

    values: list[dict[str, Any]]  # n; empty where the line is no JSON object
    lines: list[bytes]  # n; empty where the row has exact numbers already
    lax: list[int]  # rows of lines that orjson refuses
    reasons: Reasons  # of rows that are no objects, or that have two values of one name


def parse_lines(lines: Iterable[tuple[bytes, int]], names: Sequence[str]) -> ParsedLines:
    """Parses each line. `names`: the columns that are read."""
    found = ParsedLines([], [], [], {})
    once = heads(names)  # names that may stand once in a line
    find_keys = lax_json.key_pattern(once).findall
    usual: list[bytes] = []  # keys of an earlier line, each once; most lines have the same, and one comparison is enough
    for number, (line, length) in enumerate(lines):
        row: Any = {}
        if length > len(line):
            found.reasons[number] = ("line_too_long", f"{length:,} bytes, more than {MAX_LINE_BYTES:,}")
        else:
            try:
                row, is_lax = parse_line(line)
                if is_lax:
                    found.lax.append(number)
                keys = find_keys(line)
                if keys != usual:
                    if len(keys) == len(set(keys)):
                        usual = keys
                    elif lax_json.may_repeat(keys, row, find_keys):
                        lax_json.require_one_value(line, once)
            except ValueError as error:
                row, found.reasons[number] = {}, ("not_json", str(error)[:200])
        if not isinstance(row, dict):
            row, found.reasons[number] = {}, ("not_json", f"a JSON {type(row).__name__}, not an object")
        found.values.append(row)
        found.lines.append(line)
    return found


def parse_line(line: bytes) -> tuple[Any, bool]:
    """The value of a line, and whether only `lax_json` parses it, with exact numbers. Others may have lost digits: see `restore_digits`.

    Raises ValueError."""
    try:
        return orjson.loads(line), False
    except orjson.JSONDecodeError as error:
        try:
            return lax_json.parse(line), True
        except ValueError:
            raise error from None


def parse_exactly(line: bytes) -> Any:
    """The value of a line that orjson has parsed, with a Numeral for each number that int or float would change."""
    return lax_json.load(line.decode())


def may_lose_digits(line: bytes) -> bool:
    """Whether the line contains a number that orjson would change. A number within a text also counts."""
    shape = line.translate(NUMERAL_SHAPE)
    start = shape.find(LONG_NUMERAL)
    while start >= 0:
        numeral = NUMERAL.match(line, start)
        if numeral is None or loses_digits(numeral[0].decode()):
            return True
        start = shape.find(LONG_NUMERAL, numeral.end())
    return SMALL_NUMERAL in shape


def loses_digits(token: str) -> bool:
    try:
        # With a minus in front or without: a negative integer has one bit less.
        return isinstance(exact_int(f"-{token}") if token.isdigit() else exact_float(token), Numeral)
    except ValueError:  # no number, but a row of dots in a text
        return False


def restore_digits(parsed: ParsedLines, names: Iterable[str]) -> None:
    """Parses the rows again that may have lost digits of a number in one of the columns `names`."""
    doubtful: set[int] = set()
    for name in names:
        values = [row.get(name) for row in parsed.values]
        if MAY_HOLD_DOUBLES.intersection(map(type, values)):
            doubtful.update(number for number, value in enumerate(values) if type(value) in MAY_HOLD_DOUBLES)
    for number in doubtful.difference(parsed.lax):
        if may_lose_digits(parsed.lines[number]):
            parsed.values[number] = parse_exactly(parsed.lines[number])


JSON_LINES = Format("jsonl", (".jsonl", ".jsonlines", ".ndjson", ".json"), (), layout, reading, part_rows)
