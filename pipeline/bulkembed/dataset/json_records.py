"""JSON records of an output: read, written, and numbered without gaps by create-only writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import orjson

from bulkembed.dataset.paths import numbered_uri
from bulkembed.errors import StorageError
from bulkembed.storage.store import Store

T = TypeVar("T")


def read_record(store: Store, uri: str, parse: Callable[[dict[str, Any]], T]) -> T:
    """Raises FileNotFoundError where there is no record, and StorageError where bulkembed did not write what is there."""
    data = store.read(uri)
    try:
        return parse(orjson.loads(data))
    except (KeyError, TypeError, ValueError) as error:
        raise StorageError(f"{uri}: is damaged: {type(error).__name__}: {error}") from error


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
    return [int(name[:-5]) for name in store.names(folder) if name.endswith(".json") and name[:-5].isdigit()]


def record_bytes(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
