"""A command line of bulkembed that is sent to a cluster: what it may not hold, which files go with it, and its grace."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bulkembed.config.run_config import RunConfig
from bulkembed.config.settings import parse_setting
from bulkembed.config.toml_files import read_toml
from bulkembed.errors import ConfigError

PLACES = {"source", "output", "model", "feed", "ids"}
LOCAL_FILES = {"write"}  # a file of the job's working folder would be deleted with it


def pack_configs(command: list[str], folder: Path) -> list[str]:
    """Copies the configuration files of `command` into `folder`, and returns the command with their names there.

    Raises ConfigError where one cannot be read."""
    names: list[str] = []

    def pack(path: str) -> str:
        # The number keeps files of the same name apart. It also keeps a file from shadowing a Python module.
        names.append(f"{len(names) + 1}-{Path(path).name}")
        try:
            (folder / names[-1]).write_bytes(Path(path).expanduser().read_bytes())
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
        return names[-1]

    return with_configs(command, pack)


def with_configs(command: list[str], replace: Callable[[str], str]) -> list[str]:
    """The command with each path of `--config` replaced."""
    rest = iter(command)
    replaced = []
    for argument in rest:
        name, equals, value = argument.partition("=")
        if name != "--config":
            replaced.append(argument)
        elif equals:
            replaced.append(f"--config={replace(value)}")
        else:
            path = next(rest, None)
            if path is None:
                raise ConfigError("--config: needs a file")
            replaced += ["--config", replace(path)]
    return replaced


def digest(sent: list[str], folder: Path) -> str:
    """A hash of the command and of what its configuration files in `folder` hold, whatever their names. 12 hexadecimal digits."""
    named = with_configs(sent, lambda name: hashlib.sha256((folder / name).read_bytes()).hexdigest())
    return hashlib.sha256("\0".join(named).encode()).hexdigest()[:12]


def options_of(command: list[str]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each option's name, its value if it takes one, and the keys that it sets."""
    for argument, following in zip(command, [*command[1:], ""], strict=True):
        if not argument.startswith("--"):
            continue
        name, equals, value = argument.partition("=")
        value = value if equals else following
        yield name, value, parse_setting(value) if name == "--set" else {name.removeprefix("--").replace("-", "_"): value}


def refuse_relative(command: list[str]) -> None:
    """Raises ConfigError for a local place that means another one in the job's working folder, which Ray deletes in the end."""
    for name, value, table in options_of(command):
        keys = read_toml(Path(value)) if name == "--config" and value else table
        for key in keys.keys() & (PLACES | LOCAL_FILES):
            for place in map(str, keys[key] if isinstance(keys[key], list) else [keys[key]]):
                here = place.startswith((".", "~")) if key == "model" else "://" not in place and not place.startswith("/")
                if here:
                    raise ConfigError(f"{key}: {place} is not the same on the cluster; give an absolute path there, or a URI")


def refuse_secrets(command: list[str]) -> None:
    """Raises ConfigError where the command line holds secrets: Ray shows it on the dashboard and logs it."""
    for name, value, table in options_of(command):
        if name == "--set" and ("storage" in table or "env" in (table.get("engine") or {})):
            key = value.partition("=")[0]
            raise ConfigError(f"--set {key}: everybody who sees the cluster sees a job's command line; write it into the --config file")
        for key in PLACES & table.keys():
            try:
                RunConfig.no_credentials(str(table[key]))
            except ValueError as error:
                raise ConfigError(f"{key}: {error}") from None


def grace_seconds(command: list[str]) -> float:
    """The seconds that shards in flight have after a signal. A value that is no such number is left to the job, which refuses it."""
    grace: float = RunConfig.model_fields["grace_seconds"].default
    files = [read_toml(Path(value)) for name, value, _ in options_of(command) if name == "--config"]
    for table in [*files, *(table for _, _, table in options_of(command))]:
        if "grace_seconds" in table:
            grace = number_or(grace, table["grace_seconds"])
    return grace


def number_or(default: float, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return default
    return number if math.isfinite(number) and number >= 0 else default
