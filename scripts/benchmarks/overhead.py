"""."""

from collections.abc import Iterator

from typing import Any


def overhead() -> Iterator[dict[str, Any]]:
    """overhead."""
    yield {}
