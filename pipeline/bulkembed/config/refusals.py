"""What a message about a wrong configuration says, and what it leaves out: values of `--set` above all, which may be secrets."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bulkembed.config.credentials import masked, texts_in
from bulkembed.config.engine_args import OWN_ARGS

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


def key_of(setting: str) -> tuple[str, ...]:
    """`("engine", "step_tokens")` of `engine.step_tokens=4096`; nothing where it has no key."""
    try:
        table: Any = tomllib.loads(f"{setting.partition('=')[0]} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    path = []
    while isinstance(table, dict):
        (name,) = table
        path.append(name)
        table = table[name]
    return tuple(path)


def setting_texts(arguments: Sequence[str]) -> Iterator[str]:
    """What a command line gives with `--set`, and what stands behind one by mistake, as in `--set KEY = VALUE`."""
    behind = False
    for argument in arguments:
        if argument.startswith("--set="):
            behind = True
            yield from texts_of(argument.removeprefix("--set="))
        elif argument.startswith("-"):
            behind = argument == "--set"
        elif behind:
            yield from texts_of(argument)


def texts_of(setting: str) -> Iterator[str]:
    _, equals, value = setting.partition("=")
    yield value.strip() if equals else setting
    with suppress(tomllib.TOMLDecodeError):  # it is text
        yield from texts_in(tomllib.loads(f"value = {value}"))
