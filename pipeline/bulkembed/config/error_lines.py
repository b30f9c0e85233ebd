"""What a message about a wrong configuration says, and what it leaves out: values of `--set` above all, which may be secrets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bulkembed.config.credentials import masked
from bulkembed.config.engine_args import OWN_ARGS
from bulkembed.config.settings import key_of

if TYPE_CHECKING:
    from pydantic import ValidationError


def first_line(error: ValidationError, settings: Sequence[str] = ()) -> str:
    """One line that names the field: `shards.max_rows: Input should be ... (got 0)`. What `settings` gave is not shown."""
    problem = error.errors()[0]
    place = tuple(str(part) for part in problem["loc"])
    given = [setting for setting in settings if related(key_of(setting), place)]
    # A table may be given as one value, whose own keys are not shown either.
    field = ".".join(place[: max((len(key_of(setting)) for setting in given), default=len(place))])
    kind = problem["type"]
    if kind == "missing":
        return f"{field}: is required (a flag --{field.replace('_', '-')}, or a key in the --config file)"
    if kind == "extra_forbidden":
        return f"{field}: unknown key"
    message = problem["msg"].removeprefix("Value error, ")
    told = words(message) - OWN_ARGS.keys()  # whose names are no secrets, and the message is about one of them
    if any(words(setting.partition("=")[2]) & told for setting in given):
        message = "cannot be what --set gives (which is not shown)"
    if not field:  # the model validator's messages name their field themselves
        return message
    shown = "" if given or is_secret(field, kind) else shown_value(problem["input"])
    return f"{field}: {message}{shown}"


def is_secret(field: str, kind: str) -> bool:
    return kind == "credentials" or field.startswith(("storage", "engine.env", "engine.args"))


def shown_value(value: Any) -> str:
    """Nothing for tables: they may hold anything beside the mistake."""
    some = value if isinstance(value, list | tuple) else [value]
    return "" if any(isinstance(each, dict | list) for each in some) else masked(f" (got {value!r})")


def related(key: tuple[str, ...], place: tuple[str, ...]) -> bool:
    """Whether one is the other, or above it."""
    shorter = min(len(key), len(place))
    return key[:shorter] == place[:shorter]


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text))
