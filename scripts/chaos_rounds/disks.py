"""The disk of the output is full."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from scripts.chaos_rounds.scene import Scene

CHUNKS = (1 << 20, 1 << 12)  # bytes: the disk is filled to the last page


@contextlib.contextmanager
def full(scene: Scene) -> Iterator[str | None]:
    """Takes all that is left of the disk, and gives it back."""
    disk = scene.where.disk
    if disk is None:
        yield None
        return
    ballast = disk / "ballast"
    try:
        for chunk in CHUNKS:
            fill(ballast, bytes(chunk))
        yield f"{ballast.stat().st_size >> 20} MiB taken"
    finally:
        ballast.unlink(missing_ok=True)


def fill(path: Path, chunk: bytes) -> None:
    with contextlib.suppress(OSError), path.open("ab", buffering=0) as file:
        while True:
            file.write(chunk)
