"""Which nodes can load the model, by the starts of embedding actors that were lost there. Pure.

A start is lost for one of four reasons. Its node went away, which says nothing. The node lacks what it needs, such as the model's
folder: it is refused at once. Something passes, such as a process that still holds the GPU's memory: the node is refused after a few
lost starts in a row. Or the model cannot be built or makes wrong vectors: that is most likely so everywhere."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Literal

from bulkembed.errors import BulkembedError, ConfigError, EngineError, GateError, HubError, ModelError, SourceError

MAX_LOST_STARTS = 3  # in a row on one node, of what may pass
MAX_ALIKE = 2  # nodes that are refused for what is most likely so everywhere, where no node has loaded the model
MAX_LOST_NODES = 20  # in a row
MAX_REFUSED = 100  # nodes: a cluster that grows by nodes that are of no use would go on for ever

Kind = Literal["gone", "lacking", "passing", "built"]


class NodeLost(EngineError):
    """The node of an actor went away while the actor loaded its model."""


def kind_of(reason: BulkembedError) -> Kind:
    if isinstance(reason, NodeLost):
        return "gone"
    if isinstance(reason, EngineError | HubError):
        return "passing"
    is_lacking = isinstance(reason, ModelError | ConfigError | SourceError) and not isinstance(reason, GateError)
    return "lacking" if is_lacking else "built"


class Starts:
    """Counts the starts of a run's actors."""

    def __init__(self, unfit: Collection[str] = ()) -> None:
        """`unfit`: nodes that lack what they need, as is known already."""
        self.refused: dict[str, Kind] = dict.fromkeys(unfit, "lacking")  # nodes on which no actor is started any more
        self.loaded: set[str] = set()  # nodes on which an actor has loaded the model
        self.lost: Counter[str] = Counter()  # starts in a row, by node
        self.lost_nodes = 0  # in a row

    def record_success(self, node: str) -> None:
        self.loaded.add(node)
        self.lost[node] = self.lost_nodes = 0

    def record_loss(self, node: str, reason: BulkembedError) -> None:
        kind = kind_of(reason)
        if kind == "gone":
            self.lost_nodes += 1
            return
        self.lost[node] += 1
        if self.lost[node] >= MAX_LOST_STARTS or (kind in ("lacking", "built") and node not in self.loaded):
            self.refused[node] = kind

    def refuse(self, node: str) -> None:
        """Takes it that the node lacks what it needs."""
        self.refused[node] = "lacking"

    @property
    def lacking(self) -> list[str]:
        """The nodes that lack what they need, also for reading."""
        return [node for node, kind in self.refused.items() if kind == "lacking"]

    @property
    def is_in_vain(self) -> bool:
        """Whether no further actor is worth a start, whatever nodes come."""
        alike = sum(kind != "lacking" for kind in self.refused.values())
        return (alike >= MAX_ALIKE and not self.loaded) or len(self.refused) >= MAX_REFUSED

    @property
    def is_over(self) -> bool:
        """Whether so many nodes went away in a row that the run must end."""
        return self.lost_nodes >= MAX_LOST_NODES

    def final_error(self, reason: BulkembedError) -> BulkembedError:
        """What ends a run in which no actor can load the model. `reason`: of the last lost start."""
        if kind_of(reason) in ("gone", "passing"):
            count = sum(self.lost.values()) + self.lost_nodes
            return BulkembedError(f"{count} embedding actors in a row were lost while loading the model: {reason}")
        return BulkembedError(str(reason)) if self.loaded else reason
