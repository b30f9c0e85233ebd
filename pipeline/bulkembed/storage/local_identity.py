"""What the system says of a local file -> the version of its content.

Size and modification time are not enough: a restored file has those of the file before it. The time of the last change of the inode
cannot be set by anybody, and the inode number tells two files apart that were written in one tick of the clock."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path
from typing import Any

MOUNTS = Path("/proc/self/mountinfo")
# File systems that number inodes anew on each mount, or for each client: a worker would see another version than the driver.
NUMBERED_BY_CLIENT = ("fuse", "9p", "cifs", "smb")


def local_info(known: os.stat_result) -> dict[str, Any]:
    """The info of a file as fsspec's file systems give it, with its version."""
    inode = f"-{known.st_ino}" if has_lasting_inodes(known.st_dev) else ""
    version = f"{known.st_size}-{known.st_mtime_ns}-{known.st_ctime_ns}{inode}"
    return {"size": known.st_size, "mtime": known.st_mtime, "version": version}


@lru_cache(maxsize=64)
def has_lasting_inodes(device: int) -> bool:
    """Whether a file has one inode number on all hosts and after each mount. True where the system does not say."""
    try:
        lines = MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return True
    wanted = f"{os.major(device)}:{os.minor(device)}"
    kinds = [line.partition(" - ")[2].split(" ")[0] for line in lines if line.split(" ")[2:3] == [wanted]]
    return not any(kind.startswith(NUMBERED_BY_CLIENT) for kind in kinds)
