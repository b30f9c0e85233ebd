"""A line of JSON -> a row with exact numbers, and a column of such rows -> an Arrow array.

A value is accepted only if the array gives the same value back. Otherwise the row is rejected as `wrong_type`. orjson turns an integer
beyond 64 bits into a double, and also a decimal with more digits than a double holds. Two ids could then become one. Lines that may hold
such a number are therefore parsed again by Python's own parser.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation, Overflow
from types import NoneType
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.source.column_types import LISTS, holds_json_text
from bulkembed.source.conversion import Reasons
from bulkembed.source.text_lines import BYTE_ORDER_MARK
from bulkembed.storage.compression import codec_of

NUMBER_WORDS = (b"NaN", b"Infinity")  # Python and pandas write them, although JSON does not have them
NUMERAL = re.compile(rb"[0-9.eE][0-9.eE+-]*")
MAY_HOLD_DOUBLES = {float, list, dict}  # Python types of values that may hold a double
NUMERAL_SHAPE = bytes.maketrans(b"123456789.E", b"0000000000e")
# A double holds every number of 15 digits, and loses digits below 1e-307.
LONG_NUMERAL, SMALL_NUMERAL = b"0" * 16, b"e-000"
MAX_DOUBLE_CHARACTERS = 1100  # enough to write any double in full
# What Arrow raises for a Python value that does not fit the type.
MISFITS = (pa.ArrowException, TypeError, ValueError, OverflowError, RecursionError)
# Python types that Arrow stores in a type without any change: these values need no comparison.
EXACT_TYPES: dict[pa.DataType, set[type]] = {
    pa.bool_(): {bool},
    pa.int64(): {int},
    pa.uint64(): {int},
    pa.float64(): {float},
    pa.string(): {str},
    pa.large_string(): {str},
}


def require_lines(file: BinaryIO, uri: str) -> None:
    """Raises ObjectError where a file starts with a JSON array, or with an object that continues on the next line."""
    first, line_end, _ = cast("io.BufferedReader", file).peek(1).removeprefix(BYTE_ORDER_MARK).lstrip().partition(b"\n")
    first = first.rstrip()
    # In a file named .jsonl, a line that starts with a bracket is a bad row, unless it is clearly the start of an array.
    is_array = first.startswith(b"[") and (codec_of(uri)[0].endswith(".json") or first == b"[" or first.endswith(b","))
    if is_array or (line_end and first == b"{"):
        kind = "JSON array" if is_array else "JSON object over several lines"
        raise ObjectError(f"{uri}: is one {kind}, not JSON lines; write one object a line, or give a glob that leaves it out")


@dataclass(frozen=True)
class Numeral:
    """A number as it is written, which neither a 64-bit integer nor the shortest text of a double gives back."""

    token: str

    def __repr__(self) -> str:
        return self.token

    @property
    def in_double(self) -> bool:
        """Whether a double holds all written digits. It holds those of a double written with `%.20f`."""
        if not self.token[-1:].isdigit():
            return True  # NaN or Infinity
        if len(self.token) > MAX_DOUBLE_CHARACTERS:
            return False
        try:
            number = Decimal(self.token)
            digits = len(number.as_tuple().digits)
            return Context(prec=digits).plus(Decimal(float(self.token))) == number
        except (InvalidOperation, Overflow):  # an exponent of many digits; infinity
            return False


class Misfit(Exception):
    """A value that the type would change: (its path, value)."""


def parse_line(line: bytes) -> Any:
    """The value of a line. Its numbers may have lost digits: see `restore_digits`. Raises ValueError."""
    try:
        return orjson.loads(line)
    except orjson.JSONDecodeError as error:
        bare = line.removeprefix(BYTE_ORDER_MARK)
        if len(bare) < len(line):
            return parse_line(bare)
        if not any(word in line for word in NUMBER_WORDS) and "infinity" not in str(error):
            raise
    row = parse_exactly(line)
    json.dumps(row, ensure_ascii=False, default=str).encode()  # raises for half a surrogate pair, which orjson refuses too
    return row


def parse_exactly(line: bytes) -> Any:
    """The value of a line, with a Numeral for each number that int or float would change. Raises ValueError."""
    text = line.removeprefix(BYTE_ORDER_MARK).decode()
    try:
        return json.loads(text, parse_int=exact_int, parse_float=exact_float, parse_constant=Numeral)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def exact_int(token: str) -> int | Numeral:
    number = int(token) if len(token) <= 20 else 1 << 64
    return number if -(1 << 63) <= number < 1 << 64 else Numeral(token)


def exact_float(token: str) -> float | Numeral:
    number = float(token)
    try:
        return number if repr(number) == token or Decimal(repr(number)) == Decimal(token) else Numeral(token)
    except InvalidOperation:  # an exponent of many digits
        return Numeral(token)


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


def restore_digits(rows: list[dict[str, Any]], lines: list[bytes], names: Iterable[str]) -> None:
    """Parses the rows again that may have lost digits of a number in one of the columns `names`."""
    doubtful: set[int] = set()
    for name in names:
        values = [row.get(name) for row in rows]
        if MAY_HOLD_DOUBLES.intersection(map(type, values)):
            doubtful.update(number for number, value in enumerate(values) if type(value) in MAY_HOLD_DOUBLES)
    for number in doubtful:
        if may_lose_digits(lines[number]):
            rows[number] = parse_exactly(lines[number])


def typed_array(values: Sequence[Any], field: pa.Field, name: str, reasons: Reasons) -> pa.Array:
    """The values of column `name` in the type of the run. A value that the type would change is null, and its row is rejected."""
    if holds_json_text(field):
        return pa.array(json_texts(values, name, reasons), field.type)
    array, doubtful = try_array(values, field.type)
    if not doubtful:
        return array
    fitting = list(values)
    for row in doubtful:
        try:
            fitting[row] = fit_value(values[row], field.type, name)
        except Misfit as misfit:
            fitting[row] = None
            path, value = misfit.args
            detail = f"{value_text(path, value)}, not {shorten(str(field.type))}; {remedy(name, value, field.type)}"
            reasons.setdefault(row, ("wrong_type", detail))
    return pa.array(fitting, field.type)


def try_array(values: Sequence[Any], kind: pa.DataType) -> tuple[pa.Array | None, Sequence[int]]:
    """The array, and the rows whose values it may have changed."""
    try:
        array = pa.array(values, kind)
        if set(map(type, values)) - {NoneType} <= EXACT_TYPES.get(kind, set()):
            return array, []
        pairs = zip(values, python_values(array), strict=True)
        return array, [row for row, (value, back) in enumerate(pairs) if not is_same(value, back)]
    except MISFITS:
        return None, range(len(values))


def is_same(value: Any, back: Any) -> bool:
    """Whether both values are equal. Comparing their JSON texts first is faster, since orjson is written in Rust."""
    alike = isinstance(value, dict | list) and orjson.dumps(value, default=repr) == orjson.dumps(back, default=repr)
    return alike or difference(value, back, "") is None


def fit_value(value: Any, kind: pa.DataType, name: str) -> Any:
    """The value in a form that Arrow stores without a change. Raises Misfit."""
    number = with_exact_numbers(value, kind)
    try:
        (back,) = python_values(pa.array([number], kind))
    except MISFITS:
        raise Misfit(name, value) from None
    if changed := difference(number, back, name):
        raise Misfit(*changed)
    return number


def python_values(array: pa.Array) -> list[Any]:
    """The values of an array as Python has them; dates and times as numbers, since JSON has no such type."""
    if pa.types.is_temporal(array.type):
        array.validate(full=True)  # a date64 within a day: Parquet keeps the day alone
        if pa.types.is_timestamp(array.type):
            array.cast(pa.timestamp("ms") if array.type.unit == "s" else array.type)  # Parquet has no seconds
        array = array.view(pa.int32() if array.type.bit_width == 32 else pa.int64())
    values: list[Any] = array.to_pylist()
    return values


def with_exact_numbers(value: Any, kind: pa.DataType) -> Any:
    """The value with its numbers in the Python type that `kind` needs: `decimal` takes no float, `double` no Numeral."""
    if isinstance(value, Numeral):
        if pa.types.is_decimal(kind) and value.token[-1:].isdigit():
            return Decimal(value.token)
        return float(value.token) if pa.types.is_floating(kind) and value.in_double else value
    if isinstance(value, float) and pa.types.is_decimal(kind):
        return Decimal(repr(value))
    if isinstance(value, list) and isinstance(kind, LISTS):
        return [with_exact_numbers(item, kind.value_type) for item in value]
    if isinstance(value, dict) and pa.types.is_struct(kind):
        types = {field.name: field.type for field in kind}
        return {key: with_exact_numbers(item, types[key]) if key in types else item for key, item in value.items()}
    return value


def difference(value: Any, back: Any, path: str) -> tuple[str, Any] | None:
    """Path and value of the first place where `back` differs from `value`; None if they are equal. An absent key is null."""
    if isinstance(value, dict) and isinstance(back, dict):
        parts = ((f"{path}.{key}", item, back.get(key)) for key, item in value.items())
    elif isinstance(value, list) and isinstance(back, list) and len(value) == len(back):
        parts = ((f"{path}[{number}]", item, back[number]) for number, item in enumerate(value))
    elif isinstance(value, str) and isinstance(back, bytes):
        return None if value.encode() == back else (path, value)
    else:
        nan = value != value and back != back  # noqa: PLR0124
        same = nan or (value == back and isinstance(value, bool) == isinstance(back, bool))
        return None if same else (path, value)
    return next((changed for where, item, now in parts if (changed := difference(item, now, where))), None)


def json_texts(values: Iterable[Any], name: str, reasons: Reasons) -> list[str | None]:
    """Texts unchanged, other values as their JSON text. A value that is nested too deeply is null, and its row is rejected."""
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            texts.append(None if value is None else to_json_text(value))
        except (TypeError, RecursionError):
            texts.append(None)
            reasons.setdefault(row, ("wrong_type", f"{name} is nested too deeply"))
    return texts


def to_json_text(value: Any) -> str:
    """A text unchanged, another value as JSON. Raises TypeError where orjson cannot write it."""
    if isinstance(value, str):
        return value
    return orjson.dumps(value, default=as_written, option=orjson.OPT_PASSTHROUGH_DATACLASS).decode()


def as_written(value: Any) -> orjson.Fragment:
    if isinstance(value, Numeral):
        return orjson.Fragment(value.token)
    raise TypeError(f"a {type(value).__name__} is no JSON")


def value_text(path: str, value: Any) -> str:
    return f"{path} is {shorten(repr(value))}"


def shorten(text: str) -> str:
    return text if len(text) <= 100 else f"{text[:97]}..."


def remedy(name: str, value: Any, kind: pa.DataType) -> str:
    if isinstance(value, float) and pa.types.is_integer(kind):
        return f'column_types.{name} = "double" takes it'
    return f'column_types.{name} = "string" takes any value, as text'
