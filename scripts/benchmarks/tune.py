"""."""

from collections.abc import Iterator
from typing import Any


def tune() -> Iterator[dict[str, Any]]:
    """tune."""
    yield {}
