"""Options of a user -> those of one side, checked against what the file system of a protocol takes."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Literal

from bulkembed.errors import ConfigError

Side = Literal["source", "output"]
OTHER_SIDE: dict[Side, Side] = {"source": "output", "output": "source"}
S3, WEB = ("s3", "s3a"), ("http", "https")
CACHE_OPTIONS = {"use_listings_cache", "listings_expiry_time", "max_paths", "skip_instance_cache"}  # that every file system takes
NOT_OPTIONS = {
    *("self", "args", "kwargs", "storage_options", "fs", "loop", "asynchronous", "method", "str_or_url", "data", "json", "config"),
    *("session", "service_name"),
}
# What the value of an option must be, where its name, its annotation or its default tells.
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "bool": ((bool,), "true or false"),
    "int": ((int, float), "a number"),
    "float": ((int, float), "a number"),
    "str": ((str,), "a text in quotes"),
    "dict": ((Mapping,), "a table"),
}
NAMED_KINDS = {
    **dict.fromkeys(("endpoint_url", "key", "secret", "username", "password", "profile", "region_name"), "str"),
    **dict.fromkeys(("default_block_size", "block_size"), "int"),
    **dict.fromkeys(("s3_additional_kwargs", "proxies", "s3", "retries"), "dict"),
}
TEXT_TOO = {"requester_pays", "session_verify", "tls", "ssl", "verify"}  # true, false, or the name of a project or a file
Known = dict[str, str]  # options by name, with the kind of their values; empty: any


def of_side(settings: Mapping[str, Any], side: Side) -> dict[str, Any]:
    """The options of one side: those of both, and its own, which replace them key by key.

    Raises ConfigError where a side is no table."""
    for name in OTHER_SIDE:
        require_table(f"storage.{name}", settings.get(name, {}))
    return {name: value for name, value in settings.items() if name not in OTHER_SIDE} | dict(settings.get(side, {}))


def require_known(protocol: str, filesystem: type, options: Mapping[str, Any], side: Side, places: Mapping[str, str]) -> None:
    """Raises ConfigError for an option that this file system does not take, and for one that is no option of its client.

    `places`: the keys under which the user has given options, by the options' names."""
    require_options(protocol, "storage.", options, options_of(protocol, filesystem), side, places)
    for table, known in tables_of(protocol).items():
        place = places.get(table, f"storage.{table}")
        require_table(place, options.get(table, {}))
        require_options(protocol, f"{place}.", options.get(table, {}), known, side, {})


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


def require_options(protocol: str, table: str, options: Mapping[str, Any], known: Known, side: Side, places: Mapping[str, str]) -> None:
    """Raises ConfigError for an option that is not `known`, and for a value of another kind. Values may be secrets, and are not shown."""
    for name in sorted(options):
        place = places.get(name, f"{table}{name}")
        if name not in known:
            similar = get_close_matches(name, known, 1, 0.8)
            elsewhere = f"an option of the {OTHER_SIDE[side]} alone belongs into [storage.{OTHER_SIDE[side]}]"
            advice = f"did you mean {similar[0]}?" if similar else elsewhere
            raise ConfigError(f"{place}: the {side} is on {protocol}://, which has no such option; {advice}")
        if wanted := wanted_instead(known[name], options[name]):
            raise ConfigError(f"{place}: expected {wanted}")


def wanted_instead(kind: str, value: Any) -> str:
    """What a value must be that is of another kind; empty for one that may be right. The text "false" would count as true."""
    if isinstance(value, str) and value.lower() in ("true", "false") and kind != "str":
        return KINDS["bool"][1]
    types, wanted = KINDS.get(kind, ((object,), ""))
    if isinstance(value, bool):
        return "" if kind in ("bool", "") else wanted
    return "" if isinstance(value, types) else wanted


def options_of(protocol: str, filesystem: type) -> Known:
    """The options that a file system takes by name."""
    known: Known = dict.fromkeys(CACHE_OPTIONS, "")
    for kind in filesystem.__mro__:
        known = parameters(vars(kind).get("__init__", object.__init__)) | known
    if protocol in S3:
        return {**known, "profile": "str"}  # of botocore's session
    if protocol in WEB:
        import aiohttp

        return parameters(aiohttp.ClientSession._request) | known
    return known


def tables_of(protocol: str) -> dict[str, Known]:
    """Tables of options that a file system passes on, each with the names that its client takes."""
    if protocol in S3:
        from botocore.config import Config
        from botocore.session import Session

        of_config = {name: kind_of(name, "", default) for name, default in Config.OPTION_DEFAULTS.items()}
        return {"client_kwargs": parameters(Session.create_client), "config_kwargs": of_config}
    if protocol in WEB:
        import aiohttp

        return {"client_kwargs": parameters(aiohttp.ClientSession.__init__)}
    return {}


def parameters(function: Callable[..., Any]) -> Known:
    known = inspect.signature(function).parameters
    return {name: kind_of(name, each.annotation, each.default) for name, each in known.items() if name not in NOT_OPTIONS}


def kind_of(name: str, annotation: Any, default: Any) -> str:
    """A key of KINDS; empty where nothing tells what the value of an option must be."""
    if name in TEXT_TOO:
        return ""
    if name in NAMED_KINDS:
        return NAMED_KINDS[name]
    named = set(re.findall(r"\w+", str(annotation))) - {"class", "typing", "Optional", "Union", "None"}
    for found in (next(iter(named)) if len(named) == 1 else "", type(default).__name__):
        if found in KINDS:
            return found
    return ""
