"""An Arrow array -> the texts of a column that takes any value: text unchanged, every other value as its JSON, with all digits."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.compute as pc

from bulkembed.source.column_types import is_text, plain_type
from bulkembed.source.iso_8601 import iso_texts
from bulkembed.value_encoding import LISTS, list_items

Texts = list[str | None]  # None for null
JSON_EXTENSION = "arrow.json"
WITHOUT_JSON = (
    pa.types.is_binary,
    pa.types.is_large_binary,
    pa.types.is_fixed_size_binary,
    pa.types.is_interval,
    pa.types.is_duration,
    pa.types.is_union,
)
WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}  # as Python and pandas write them


def has_json(kind: pa.DataType) -> bool:
    """Whether values of this type have a JSON text. Bytes and unions have none, and durations none that says their unit."""
    kind = plain_type(kind)
    if isinstance(kind, pa.BaseExtensionType):
        return kind == pa.uuid() or has_json(kind.storage_type)
    if pa.types.is_nested(kind) and not pa.types.is_union(kind):
        return all(has_json(kind.field(number).type) for number in range(kind.num_fields))
    return not any(test(kind) for test in WITHOUT_JSON)


def text_array(array: pa.Array) -> pa.Array:
    """The values as text. `array`: of a type that `has_json`, without dictionaries and views."""
    if is_text(array.type):
        return array.cast(pa.string())
    if is_quoted(array.type):
        return pa.array(bare_texts(array), pa.string())
    return pa.array(json_texts(array), pa.string())


def is_quoted(kind: pa.DataType) -> bool:
    """Whether JSON has the values as strings."""
    extension = isinstance(kind, pa.BaseExtensionType) and (kind == pa.uuid() or kind.extension_name == JSON_EXTENSION)
    return extension or is_text(kind) or pa.types.is_temporal(kind)


def json_texts(array: pa.Array) -> Texts:
    """The JSON of each value."""
    kind = array.type
    if is_quoted(kind):
        return [None if text is None else orjson.dumps(text).decode() for text in bare_texts(array)]
    if isinstance(kind, pa.BaseExtensionType):
        is_bool = kind.extension_name == "arrow.bool8"
        return json_texts(array.storage.cast(pa.bool_()) if is_bool else array.storage)
    if pa.types.is_floating(kind):
        return [None if number is None else float_text(number) for number in array.cast(pa.float64()).to_pylist()]
    nested = next((texts_of for test, texts_of in NESTED if test(kind)), None)
    return list(array.cast(pa.string()).to_pylist()) if nested is None else nested(array)


def bare_texts(array: pa.Array) -> Texts:
    """The text of each value that JSON has as a string, without quotes."""
    if array.type == pa.uuid():
        return [None if each is None else str(uuid.UUID(bytes=each)) for each in array.storage.to_pylist()]
    if isinstance(array.type, pa.BaseExtensionType):
        return list(array.storage.to_pylist())
    return iso_texts(array) if pa.types.is_temporal(array.type) else list(array.cast(pa.string()).to_pylist())


def float_text(number: float) -> str:
    return WORDS.get(str(number)) or orjson.dumps(number).decode()


def struct_texts(array: pa.StructArray) -> Texts:
    names = [orjson.dumps(field.name).decode() for field in array.type]
    columns = [[text or "null" for text in json_texts(part)] for part in array.flatten()]
    valid = array.is_valid().to_pylist()
    rows = zip(*columns, strict=True) if columns else [()] * len(array)
    return [object_text(zip(names, row, strict=True)) if there else None for there, row in zip(valid, rows, strict=True)]


def object_text(pairs: Iterable[tuple[str, str]]) -> str:
    return f"{{{','.join(f'{name}:{text}' for name, text in pairs)}}}"


def list_texts(array: pa.Array) -> Texts:
    lengths = [length or 0 for length in pc.list_value_length(array).to_pylist()]
    items = [text or "null" for text in json_texts(list_items(array))]
    borders = np.cumsum([0, *lengths]).tolist()
    valid = array.is_valid().to_pylist()
    return [f"[{','.join(items[a:b])}]" if there else None for there, (a, b) in zip(valid, pairwise(borders), strict=True)]


def map_texts(array: pa.MapArray) -> Texts:
    """An object where the keys are text, else a list of pairs."""
    offsets = array.offsets.to_pylist()
    keys, items = ([text or "null" for text in json_texts(part)] for part in (array.keys, array.items))
    is_object = is_text(array.type.key_type)
    texts: Texts = []
    for there, (a, b) in zip(array.is_valid().to_pylist(), pairwise(offsets), strict=True):
        pairs = list(zip(keys[a:b], items[a:b], strict=True))
        whole = object_text(pairs) if is_object else f"[{','.join(f'[{key},{item}]' for key, item in pairs)}]"
        texts.append(whole if there else None)
    return texts


NESTED: tuple[tuple[Callable[[pa.DataType], bool], Callable[[Any], Texts]], ...] = (
    (pa.types.is_struct, struct_texts),
    (pa.types.is_map, map_texts),
    (lambda kind: isinstance(kind, LISTS), list_texts),
)
