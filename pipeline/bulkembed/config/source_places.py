"""The places of a source as a user gives them: one text, or several."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from bulkembed.storage.local_paths import absolute_place

MAX_SHOWN = 3  # in a message


def absolute_source(source: str | tuple[str, ...]) -> str | tuple[str, ...]:
    return absolute_place(source) if isinstance(source, str) else tuple(map(absolute_place, source))


def places_of(value: str | tuple[str, ...]) -> tuple[str, ...]:
    return (value,) if isinstance(value, str) else value


def places_text(places: Sequence[str]) -> str:
    """The places as a message names them."""
    more = len(places) - MAX_SHOWN
    return ", ".join(places[:MAX_SHOWN]) + (f" and {more} more" if more > 0 else "")


def duplicates(names: Sequence[str]) -> list[str]:
    return [name for name, count in Counter(names).items() if count > 1]
