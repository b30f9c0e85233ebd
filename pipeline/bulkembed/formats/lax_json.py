"""JSON as the world writes it, of one line: NaN, Infinity, half surrogate pairs, bytes that are not UTF-8, and repeated names."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from decimal import Context, Decimal, InvalidOperation, Overflow
from typing import Any

import orjson

from bulkembed.formats.text_lines import BYTE_ORDER_MARK

SURROGATE = re.compile("[\ud800-\udfff]")
MAX_DOUBLE_CHARACTERS = 1100  # enough to write any double in full
NOT_UNICODE = "\ufffd"


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


class Replaced(str):
    """A text with U+FFFD in place of what is no Unicode: bytes that are not UTF-8, or half of a surrogate pair."""

    __slots__ = ("are_bytes",)
    are_bytes: bool

    def __new__(cls, text: str, *, are_bytes: bool) -> Replaced:
        self = super().__new__(cls, text)
        self.are_bytes = are_bytes
        return self


def parse(line: bytes) -> Any:
    """The value of a line, with a Numeral for each number that int or float would change, and Replaced texts. Raises ValueError."""
    bare = line.removeprefix(BYTE_ORDER_MARK)
    text = bare.decode(errors="surrogateescape")
    return without_surrogates(load(text), are_bytes=SURROGATE.search(text) is not None)


def load(text: str, **hooks: Any) -> Any:
    """As `json.loads`, with exact numbers. Raises ValueError."""
    try:
        return json.loads(text, parse_int=exact_int, parse_float=exact_float, parse_constant=Numeral, **hooks)
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


def without_surrogates(value: Any, *, are_bytes: bool) -> Any:
    """The value with its texts as Unicode. Names within it are plain texts."""
    if isinstance(value, str):
        return repaired(value, are_bytes=are_bytes)
    if isinstance(value, list):
        return [without_surrogates(item, are_bytes=are_bytes) for item in value]
    if isinstance(value, dict):
        return {str(repaired(key, are_bytes=are_bytes)): without_surrogates(item, are_bytes=are_bytes) for key, item in value.items()}
    return value


def repaired(text: str, *, are_bytes: bool) -> str:
    if not SURROGATE.search(text):
        return text
    try:
        whole = text.encode(errors="surrogateescape").decode(errors="replace")
        return Replaced(whole, are_bytes=are_bytes)
    except UnicodeEncodeError:  # half of a pair, written as an escape
        return Replaced(SURROGATE.sub(NOT_UNICODE, text), are_bytes=False)


def replaced_in(value: Any) -> Replaced | None:
    """The first Replaced text in a value."""
    if isinstance(value, Replaced):
        return value
    items: Iterable[Any] = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return next((found for item in items if (found := replaced_in(item)) is not None), None)


def may_repeat(keys: list[bytes], row: Any, find_keys: Callable[[bytes], list[bytes]]) -> bool:
    """Whether a line may have two values of one name. `keys`: what `find_keys` finds in it; `row`: as orjson parses it."""
    if not isinstance(row, dict):
        return False
    nested = orjson.dumps([value for value in row.values() if isinstance(value, dict | list)], default=str)
    return max((Counter(keys) - Counter(find_keys(nested))).values(), default=0) > 1


def key_pattern(names: Iterable[str]) -> re.Pattern[bytes]:
    """What finds these names as keys of a line."""
    return re.compile(b'"(%s)"\\s*:' % b"|".join(re.escape(orjson.dumps(name)[1:-1]) for name in names))  # 1 us a line of 1.4 kB


def require_one_value(line: bytes, names: Sequence[str]) -> None:
    """Raises ValueError where an object has two different values of one of the names. Only the object itself is looked at."""
    pairs: list[tuple[str, Any]] = []

    def note(found: list[tuple[str, Any]]) -> dict[str, Any]:
        pairs[:] = found  # the outermost object comes last
        return dict(found)

    load(line.removeprefix(BYTE_ORDER_MARK).decode(errors="surrogateescape"), object_pairs_hook=note)
    for name in names:
        values = [value for key, value in pairs if key == name]
        if any(value != values[0] for value in values[1:]):
            raise ValueError(f"it has {len(values)} different values of {name!r}")
