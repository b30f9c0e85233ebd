"""Durations as people write them: 24h, 7d, 90s."""

from __future__ import annotations

import math
import re

from bulkembed.errors import ConfigError

SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw]?)")


def seconds_of(duration: str | float, name: str) -> float:
    """The seconds of a duration. A number alone is seconds. Raises ConfigError that starts with `name`."""
    if isinstance(duration, str):
        match = DURATION.fullmatch(duration.strip())
        seconds = float(match[1]) * SECONDS[match[2]] if match else math.nan
    else:
        seconds = float(duration)
    if not 0 <= seconds < math.inf:
        raise ConfigError(f"{name}: {duration!r} is no duration such as 90s, 30m, 24h or 7d")
    return seconds


def duration_text(seconds: float) -> str:
    """The duration in its largest whole unit: `24h` is `1d`."""
    unit = next(unit for unit in ("w", "d", "h", "m", "s") if seconds % SECONDS[unit] == 0 or unit == "s")
    return f"{seconds / SECONDS[unit]:g}{unit}"
