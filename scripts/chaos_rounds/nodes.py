"""A Ray cluster of several nodes on this machine, and its processes."""

from __future__ import annotations

import contextlib
import os
import random
from collections.abc import Iterator, Mapping
from typing import Any
from unittest import mock

import psutil

NODES = 2
OBJECT_STORE_BYTES = 1 << 28


class Nodes:
    """A head without CPUs, and nodes that are replaced by others."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES})
        self.nodes = [self.add({}) for _ in range(NODES)]

    def add(self, env: Mapping[str, str]) -> Any:
        """A node whose processes have this environment, beside that of this process."""
        with mock.patch.dict(os.environ, env):
            return self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)

    def replace(self, number: int, env: Mapping[str, str]) -> None:
        """Kills a node and adds another one in its place."""
        self.cluster.remove_node(self.nodes[number], allow_graceful=False)
        self.nodes[number] = self.add(env)

    def any(self, chance: random.Random) -> int:
        """The number of a random node."""
        return chance.randrange(len(self.nodes))


def processes(title: str) -> Iterator[psutil.Process]:
    """Processes of the cluster that this process has started. Another Ray on this machine belongs to somebody else."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(title):
                yield process
