"""A Ray cluster of several nodes on this machine."""

from __future__ import annotations

import random
from typing import Any

NODES = 2
OBJECT_STORE_BYTES = 1 << 28


class Nodes:
    """A head without CPUs, and nodes that are killed and replaced."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": OBJECT_STORE_BYTES})
        self.nodes = [self.add() for _ in range(NODES)]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=OBJECT_STORE_BYTES)

    def kill(self, chance: random.Random) -> None:
        """Kills a node and adds another one."""
        node = self.nodes.pop(chance.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.add())
