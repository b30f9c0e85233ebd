"""."""

from collections.abc import Iterator
from typing import Any


def start() -> Iterator[dict[str, Any]]:
    """start."""
    yield {}
