"""JSON records of an output: read, written, and numbered without gaps by create-only writes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields
from functools import lru_cache
from typing import Any, TypeVar, get_type_hints

import orjson
from pydantic import TypeAdapter, ValidationError

from bulkembed.dataset.paths import numbered_uri
from bulkembed.errors import StorageError
from bulkembed.storage.store import Store

T = TypeVar("T")
NUMBER = re.compile("[0-9]{8}|[1-9][0-9]{8,}")  # as paths.numbered_uri writes it


def read_record(store: Store, uri: str, parse: Callable[[dict[str, Any]], T]) -> T:
    """Raises FileNotFoundError where there is no record, and StorageError where this version of bulkembed did not write what is there."""
    data = store.read(uri)
    try:
        record = orjson.loads(data)
        if not isinstance(record, dict):
            raise TypeError("no object of JSON")
        return parse(record)
    except (KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        why = f"{type(error).__name__}: {error}"
        raise StorageError(f"{uri}: is damaged: {why}; restore it, or use the version of bulkembed that wrote it") from error


def typed(kind: type[T]) -> Callable[[dict[str, Any]], T]:
    """A function that makes a dataclass of a record. It raises TypeError for an unknown key, and ValueError for another type."""

    def parse(record: dict[str, Any]) -> T:
        value = kind(**record)
        require_types(value)
        return value

    return parse


def require_types(value: Any) -> None:
    """Raises ValueError where a field of a dataclass has not the type that it is declared with."""
    kind: Any = type(value)
    for name, adapter in adapters_of(kind).items():
        try:
            adapter.validate_python(getattr(value, name), strict=True)
        except ValidationError:
            raise ValueError(f"{name} has another type") from None


@lru_cache(maxsize=16)
def adapters_of(kind: Any) -> dict[str, TypeAdapter[Any]]:
    hints = get_type_hints(kind)
    return {field.name: TypeAdapter(hints[field.name]) for field in fields(kind)}


def write_record(store: Store, uri: str, record: Mapping[str, Any]) -> None:
    store.put(uri, record_bytes(record))


def create_numbered(store: Store, folder: str, number: int, record: Mapping[str, Any]) -> bool:
    """False where another run took the number first."""
    return store.create(numbered_uri(folder, number), record_bytes(record))


def newest_number(store: Store, folder: str) -> int:
    """The highest number of the records in a folder; 0 where there is none."""
    return max(listed_numbers(store, folder), default=0)


def listed_numbers(store: Store, folder: str) -> list[int]:
    """The numbers of the records in a folder."""
    return numbers_among(store.names(folder), ".json")


def numbers_among(names: Iterable[str], suffix: str) -> list[int]:
    """The numbers that names with this suffix say. Other names are not of records, and are left alone."""
    stems = (name.removesuffix(suffix) for name in names if name.endswith(suffix))
    return [int(stem) for stem in stems if NUMBER.fullmatch(stem)]


def record_bytes(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
