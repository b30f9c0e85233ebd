"""Places that a caller names: absolute, and without credentials."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from typing import Any

from bulkembed.config.credentials import REFUSED, shows_credentials
from bulkembed.errors import ConfigError
from bulkembed.storage.local_paths import absolute_place
from bulkembed.storage.store import Store

Place = str | PathLike[str]
Storage = Mapping[str, Any]


def located(uri: Place, storage: Storage | None) -> tuple[Store, str]:
    return Store(dict(storage or {})), place_of("uri", uri)


def place_of(name: str, uri: Place) -> str:
    """The absolute name of a place. Raises ConfigError where it is empty, or holds credentials: messages and reports show places."""
    if not str(uri):
        raise ConfigError(f"{name}: must not be empty")
    if shows_credentials(str(uri)):
        raise ConfigError(f"{name}: {REFUSED}")
    return absolute_place(str(uri))
