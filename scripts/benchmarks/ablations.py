"""."""

from collections.abc import Iterator
from typing import Any


def ablations() -> Iterator[dict[str, Any]]:
    """ablations."""
    yield {}
