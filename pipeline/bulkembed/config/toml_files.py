"""TOML files, and keys that override theirs -> RunConfig."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bulkembed.config.credentials import hidden_texts
from bulkembed.config.error_lines import KEYS, TABLES, first_line
from bulkembed.config.run_config import RunConfig
from bulkembed.errors import ConfigError, in_one_line


def load(paths: Sequence[Path] | None, overrides: dict[str, Any], settings: Sequence[str] = ()) -> RunConfig:
    """The run that TOML files and `overrides` describe. Raises ConfigError naming the key.

    `settings`: those of `overrides` that `--set` gave."""
    return validate(read_layers(paths, overrides), settings)


def read_layers(paths: Sequence[Path] | None, overrides: dict[str, Any]) -> dict[str, Any]:
    """The keys of TOML files (if any), later ones laid over earlier ones, and `overrides` over all."""
    values: dict[str, Any] = {}
    for path in paths or ():
        values = merge(values, read_toml(path))
    return merge(values, overrides)


def validate(values: dict[str, Any], settings: Sequence[str] = ()) -> RunConfig:
    if isinstance(engine := values.get("engine"), dict):
        hidden_texts.add([engine.get("env"), engine.get("args")])
    try:
        return RunConfig.model_validate(values)
    except ValidationError as error:
        raise ConfigError(in_one_line(first_line(error, settings))) from None


def read_toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.expanduser().read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: not valid TOML: {error}") from None
    require_tables(path, values)
    return values


def require_tables(path: Path, values: dict[str, Any]) -> None:
    """Raises ConfigError where a table is none: what is laid over it by keys would replace it without a word."""
    engine = values.get("engine")
    inner = {f"engine.{name}": value for name, value in engine.items()} if isinstance(engine, dict) else {}
    tables = {*TABLES, *(name for name, key in KEYS.items() if key.noun == "a table")}
    for name, value in (values | inner).items():
        if name in tables and not isinstance(value, dict):
            problem = f"[[{name}]] is a list of tables" if isinstance(value, list) else f"{name} is no table"
            raise ConfigError(f"--config {path}: {problem}; write [{name}] once, and its keys below it")


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged
