"""."""

from collections.abc import Iterator
from typing import Any


def reads() -> Iterator[dict[str, Any]]:
    """reads."""
    yield {}
