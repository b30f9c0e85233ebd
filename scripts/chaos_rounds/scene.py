"""What a fault can reach: the run and its cluster, the places, and what is left of earlier faults."""

from __future__ import annotations

import os
import random
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from bulkembed.storage.store import Store
from scripts.chaos_rounds.material import WORK, Places
from scripts.chaos_rounds.nodes import Nodes


@dataclass(frozen=True)
class Damage:
    """An object of the output that was damaged."""

    kind: str
    uri: str
    before: bytes
    after: bytes | None  # None: it was deleted


@dataclass
class Scene:
    where: Places
    nodes: Nodes
    command: list[str]
    chance: random.Random
    starts: int = 0
    driver: subprocess.Popen[bytes] = field(init=False)  # that was started last, rivals apart
    rivals: dict[int, subprocess.Popen[bytes]] = field(default_factory=dict)  # further drivers of the same run, by start
    env_of_next_start: dict[str, str] = field(default_factory=dict)
    damages: list[Damage] = field(default_factory=list)  # that nobody has found or mended

    @property
    def store(self) -> Store:
        """The store, without the proxy."""
        return Store(self.where.storage)

    def start(self) -> subprocess.Popen[bytes]:
        """Starts the command, with what an earlier fault has put into its environment."""
        self.starts += 1
        env = os.environ | {"RAY_ADDRESS": self.nodes.cluster.address} | self.env_of_next_start
        self.env_of_next_start = {}
        with log_of(self.starts).open("w") as log:
            return subprocess.Popen(self.command, env=env, stdout=log, stderr=log)

    def wait(self, seconds: float) -> bool:
        """Waits, but no longer than the driver lives. Returns whether it lives."""
        end = time.monotonic() + seconds
        while self.driver.poll() is None and time.monotonic() < end:
            time.sleep(0.05)
        return self.driver.poll() is None


def log_of(start: int) -> Path:
    return WORK / f"run-{start}.log"
