"""Options of a user -> those of one side, checked against what the file system of a protocol takes."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from bulkembed.errors import ConfigError

Side = Literal["source", "output"]
OTHER_SIDE: dict[Side, Side] = {"source": "output", "output": "source"}
S3, WEB = ("s3", "s3a"), ("http", "https")
CACHE_OPTIONS = {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache"}  # that every file system takes
NOT_OPTIONS = {"self", "args", "kwargs", "storage_options", "fs", "loop", "asynchronous", "method", "str_or_url", "data", "json", "config"}


def of_side(settings: Mapping[str, Any], side: Side) -> dict[str, Any]:
    """The options of one side: those of both, and its own, which replace them key by key.

    Raises ConfigError where a side is no table."""
    for name in OTHER_SIDE:
        require_table(f"storage.{name}", settings.get(name, {}))
    return {name: value for name, value in settings.items() if name not in OTHER_SIDE} | dict(settings.get(side, {}))


def require_known(protocol: str, filesystem: type, options: Mapping[str, Any], side: Side) -> None:
    """Raises ConfigError for an option that this file system does not take, and for one that is no option of its client."""
    refuse_unknown(protocol, "storage.", options, options_of(protocol, filesystem), side)
    for table, known in tables_of(protocol).items():
        require_table(f"storage.{table}", options.get(table, {}))
        refuse_unknown(protocol, f"storage.{table}.", options.get(table, {}), known, side)


def require_needed(protocol: str, filesystem: type, options: Mapping[str, Any], side: Side) -> None:
    """Raises ConfigError for an option without which this file system cannot be opened, such as the host of a server."""
    own = inspect.signature(filesystem.__init__).parameters.values()  # type: ignore[misc]
    needed = [each.name for each in own if each.default is each.empty and each.kind is each.POSITIONAL_OR_KEYWORD and each.name != "self"]
    missing = [name for name in needed if name not in options]
    if missing:
        raise ConfigError(f"storage.{missing[0]}: {protocol}:// cannot be opened without it; set it in [storage] or [storage.{side}]")


def require_table(key: str, value: Any) -> None:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key}: expected a table, such as [{key}]")


def refuse_unknown(protocol: str, table: str, options: Mapping[str, Any], known: set[str], side: Side) -> None:
    for name in sorted(options.keys() - known):
        similar = get_close_matches(name, known, 1, 0.8)
        elsewhere = f"an option of the {OTHER_SIDE[side]} alone belongs into [storage.{OTHER_SIDE[side]}]"
        advice = f"did you mean {similar[0]}?" if similar else elsewhere
        raise ConfigError(f"{table}{name}: the {side} is on {protocol}://, which has no such option; {advice}")


def options_of(protocol: str, filesystem: type) -> set[str]:
    """The options that a file system takes by name."""
    known = set(CACHE_OPTIONS)
    for kind in filesystem.__mro__:
        known |= parameters(vars(kind).get("__init__", object.__init__))
    if protocol in S3:
        return known | {"profile"}  # of botocore's session
    if protocol in WEB:
        import aiohttp

        return known | parameters(aiohttp.ClientSession._request)
    return known


def tables_of(protocol: str) -> dict[str, set[str]]:
    """Tables of options that a file system passes on, each with the names that its client takes."""
    if protocol in S3:
        from botocore.config import Config
        from botocore.session import Session

        return {"client_kwargs": parameters(Session.create_client), "config_kwargs": set(Config.OPTION_DEFAULTS)}
    if protocol in WEB:
        import aiohttp

        return {"client_kwargs": parameters(aiohttp.ClientSession.__init__)}
    return {}


def parameters(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters) - NOT_OPTIONS
