"""`--set KEY=VALUE` of a command line: parsed, joined, and the texts in it that no message may repeat."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from bulkembed.config.credentials import texts_in
from bulkembed.errors import ConfigError

ESCAPE_SEQUENCE = re.compile(r"\\[\\nt]")
ESCAPED_CHARACTERS = {"\\\\": "\\", "\\n": "\n", "\\t": "\t"}
TEXT_KEYS = {"template", "prompt", "instruction"}  # their options take these escapes


def unescape(text: str) -> str:
    """Replace \\n by a line break, \\t by a tab and \\\\ by a backslash. A shell hands each over as two characters."""
    return ESCAPE_SEQUENCE.sub(lambda match: ESCAPED_CHARACTERS[match[0]], text)


def join_settings(options: dict[str, Any], settings: Sequence[str] | None) -> dict[str, Any]:
    """The keys of `options` and of every `--set`. Raises ConfigError where a key comes twice, since only one value could count."""
    values = options
    for setting in settings or []:
        values = join(values, parse_setting(setting))
    return values


def join(base: dict[str, Any], more: dict[str, Any], table: str = "") -> dict[str, Any]:
    """The keys of both tables. Raises ConfigError where they share a key; `table` stands before its name."""
    joined = dict(base)
    for key, value in more.items():
        name = f"{table}{key}"
        if isinstance(value, dict) and isinstance(joined.get(key, {}), dict):
            joined[key] = join(joined.get(key, {}), value, f"{name}.")
        elif key in joined:
            raise ConfigError(f"{name}: is set twice on the command line; give it once")
        else:
            joined[key] = value
    return joined


def parse_setting(setting: str) -> dict[str, Any]:
    """`engine.step_tokens=4096` as a table. A value that is not TOML is taken as text."""
    key, equals, value = setting.partition("=")
    if not equals:
        raise ConfigError("--set: expected KEY=VALUE, as in --set engine.step_tokens=4096")
    try:
        return tomllib.loads(f"{key} = {value}")
    except tomllib.TOMLDecodeError:
        quoted = value.replace("\\", "\\\\").replace('"', '\\"')
    try:
        table = tomllib.loads(f'{key} = "{quoted}"')
    except tomllib.TOMLDecodeError:
        raise ConfigError(f"--set {key}=...: {key!r} is not a key") from None
    return {name: unescape(text) if name in TEXT_KEYS else text for name, text in table.items()}


def key_of(setting: str) -> tuple[str, ...]:
    """`("engine", "step_tokens")` of `engine.step_tokens=4096`. Empty where the setting has no key."""
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
    """Every text that a command line gives with `--set`, or after it by mistake, as in `--set KEY = VALUE`."""
    after_set = False
    for argument in arguments:
        if argument.startswith("--set="):
            after_set = True
            yield from texts_of(argument.removeprefix("--set="))
        elif argument.startswith("-"):
            after_set = argument == "--set"
        elif after_set:
            yield from texts_of(argument)


def texts_of(setting: str) -> Iterator[str]:
    """The value of a setting, and every text in it where it is TOML."""
    _, equals, value = setting.partition("=")
    yield value.strip() if equals else setting
    with suppress(tomllib.TOMLDecodeError):  # then the value is plain text
        yield from texts_in(tomllib.loads(f"value = {value}"))
