"""Texts, as CSV has them -> an Arrow array in the type of the run. A text that is no value of the type is null, and its row is rejected."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from bulkembed.formats.lax_json import exact_float, exact_int
from bulkembed.records import Reasons
from bulkembed.source import json_values

Texts = Sequence[str | bytes | None]
INTEGER = re.compile(r"[+-]?[0-9]+")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE)
BOOLEANS = {"true": True, "false": False, "t": True, "f": False}


def typed_texts(texts: Texts, field: pa.Field, name: str) -> tuple[pa.Array, Reasons]:
    """The texts of column `name` in the type of the run. Bytes, which are not UTF-8, are null too."""
    reasons: Reasons = {
        row: ("undecodable", f"{name} is {text[:50]!r}, not UTF-8") for row, text in enumerate(texts) if isinstance(text, bytes)
    }
    values: list[Any] = [None if isinstance(text, bytes) else text for text in texts]
    kind = field.type
    if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        values = temporal(values, kind) if pa.types.is_temporal(kind) else [text and parsed(text, kind) for text in values]
    array, unfit = json_values.typed_array(values, field, name)
    return array, unfit | reasons


def parsed(text: str, kind: pa.DataType) -> Any:
    """The value that a text has in this type; the text itself where it has none."""
    bare = text.strip()
    if pa.types.is_boolean(kind):
        return BOOLEANS.get(bare.lower(), text)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        if INTEGER.fullmatch(bare):
            return exact_int(bare)
        return exact_float(bare) if NUMBER.fullmatch(bare) else text
    return text


def temporal(texts: list[str | None], kind: pa.DataType) -> list[Any]:
    """The numbers that dates and times have in this type. A text that is none of them stays."""
    try:
        moments = pa.array(texts, pa.string()).cast(kind)
    except pa.ArrowException:
        if len(texts) > 1:
            return [value for text in texts for value in temporal([text], kind)]
        return list(texts)
    numbers: list[Any] = moments.view(pa.int32() if kind.bit_width == 32 else pa.int64()).to_pylist()
    return numbers
