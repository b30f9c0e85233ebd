"""Bytes -> a local file, which is there whole or not at all; and folders that go."""

from __future__ import annotations

import errno
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

NO_HARD_LINK_ERRORS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}  # what file systems without hard links answer


def put_local(path: Path, data: bytes, publish: Callable[[Path, Path], T]) -> T:
    """Writes a temporary file, and makes it appear at `path` by `publish`: `os.replace`, or `link`. Returns what that returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The leading dot hides the file from readers' globs if the process dies before the rename.
    temporary = path.with_name(f".{path.name[:100]}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        return publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def link(temporary: Path, path: Path) -> bool:
    """Publishes a temporary file. Whether it had to look first, since the file system has no hard links: then two writers at the same
    moment both succeed. Raises FileExistsError where there is something at `path`."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in NO_HARD_LINK_ERRORS:
            raise
        if path.exists():
            raise FileExistsError(path) from None
        temporary.replace(path)
        return True
    return False


def remove_tree(path: str) -> None:
    """Removes a folder with all that is in it, if it is there."""
    if os.path.lexists(path):
        shutil.rmtree(path)
