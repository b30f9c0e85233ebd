"""A column of JSON values -> an Arrow array.

A value is accepted only if the array gives the same value back. Otherwise the row is rejected as `wrong_type`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from types import NoneType
from typing import Any

import orjson
import pyarrow as pa

from bulkembed.formats.lax_json import Numeral
from bulkembed.records import Reasons
from bulkembed.source.column_types import holds_json_text
from bulkembed.value_encoding import LISTS

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


class Misfit(Exception):
    """A value that the type would change: (its path, value)."""


def typed_array(values: Sequence[Any], field: pa.Field, name: str) -> tuple[pa.Array, Reasons]:
    """The values of column `name` in the type of the run. A value that the type would change is null, and its row has a reason."""
    if holds_json_text(field):
        texts, reasons = json_texts(values, name)
        return pa.array(texts, field.type), reasons
    array, doubtful = try_array(values, field.type)
    if not doubtful:
        return array, {}
    fitting, reasons = list(values), {}
    for row in doubtful:
        try:
            fitting[row] = fit_value(values[row], field.type, name)
        except Misfit as misfit:
            fitting[row] = None
            path, value = misfit.args
            detail = f"{value_text(path, value)}, not {shorten(str(field.type))}; {remedy(name, value, field.type)}"
            reasons[row] = ("wrong_type", detail)
    return pa.array(fitting, field.type), reasons


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


def json_texts(values: Iterable[Any], name: str) -> tuple[list[str | None], Reasons]:
    """Texts unchanged, other values as their JSON text. A value that is nested too deeply is null, and its row has a reason."""
    texts: list[str | None] = []
    reasons: Reasons = {}
    for row, value in enumerate(values):
        try:
            texts.append(None if value is None else to_json_text(value))
        except (TypeError, RecursionError):
            texts.append(None)
            reasons[row] = ("wrong_type", f"{name} is nested too deeply")
    return texts, reasons


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
