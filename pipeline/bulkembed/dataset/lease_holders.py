"""Who holds a lease: the host and the process, and whether that process is known to be gone."""

from __future__ import annotations

import os
import socket
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

PROC = Path("/proc")


@dataclass(frozen=True)
class Holder:
    """A process that writes to a line."""

    run: str  # random
    host: str
    process: int
    place: str  # of the process number: kernel and namespace; empty where the system does not say
    began: str  # when the process began, as the kernel counts; empty where the system does not say
    since: str  # ISO 8601, UTC

    def __str__(self) -> str:
        return f"run {self.run[:8]} on {self.host} (process {self.process}), since {self.since}"

    @property
    def is_here(self) -> bool:
        """Whether it is this very process."""
        return bool(self.place) and (self.place, self.process, self.began) == (place(), os.getpid(), beginning(os.getpid()))

    @property
    def is_gone(self) -> bool:
        """Whether its process has ended on this host. False where that cannot be seen from here: then its lease must run out."""
        return bool(self.place) and self.place == place() and beginning(self.process) != self.began


def this_process() -> Holder:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Holder(uuid.uuid4().hex, socket.gethostname(), os.getpid(), place(), beginning(os.getpid()), now)


def place() -> str:
    """What makes a process number mean the same process: a boot of the kernel, and a namespace of it."""
    try:
        return f"{(PROC / 'sys/kernel/random/boot_id').read_text().strip()} {(PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def beginning(process: int) -> str:
    """When a process began, in ticks since the kernel did. Empty where there is none, or only its entry is left."""
    try:
        fields = (PROC / str(process) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
