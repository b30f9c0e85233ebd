"""What the autoscaler of the connected cluster says, and what it is asked for. Ray has two kinds of them, which keep their state apart."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

ANSWER_SECONDS = 10
STATIC_NODE = "node_"  # begins the type of a node that no autoscaler has started

T = TypeVar("T")


@dataclass(frozen=True)
class Autoscaler:
    """`node_types`: of the nodes that are there, or that it is adding. `adds_gpus`: whether it is adding nodes with GPUs."""

    node_types: frozenset[str] = frozenset()
    adds_gpus: bool = False

    @property
    def can_add_nodes(self) -> bool:
        """Whether this is no cluster of nodes that somebody has started by hand."""
        return any(name and not name.startswith(STATIC_NODE) for name in self.node_types)


def look() -> Autoscaler:
    """The state of the cluster's autoscaler. A cluster without one has no node types."""
    return second_kind() if is_of_second_kind() else first_kind()


def control_store() -> Any:
    """A client of the control store of the connected cluster. Ray's own one is None from the end of a connection to the next start."""
    import ray
    from ray._raylet import GcsClient  # type: ignore[attr-defined]

    return GcsClient(address=ray.get_runtime_context().gcs_address)


def is_of_second_kind() -> bool:
    """As `ray.autoscaler.v2.utils` has it, which takes a tenth of a second to import."""
    from ray._raylet import GCS_AUTOSCALER_STATE_NAMESPACE, GCS_AUTOSCALER_V2_ENABLED_KEY  # type: ignore[attr-defined]

    key, namespace = GCS_AUTOSCALER_V2_ENABLED_KEY.encode(), GCS_AUTOSCALER_STATE_NAMESPACE.encode()
    return bool(control_store().internal_kv_get(key, namespace=namespace, timeout=ANSWER_SECONDS) == b"1")


def first_kind() -> Autoscaler:
    from ray._private.ray_constants import DEBUG_AUTOSCALING_STATUS

    status = control_store().internal_kv_get(DEBUG_AUTOSCALING_STATUS.encode(), timeout=ANSWER_SECONDS)
    return from_report(json.loads(status).get("autoscaler_report") or {} if status else {})


def from_report(report: dict[str, Any]) -> Autoscaler:
    """`report`: as the first autoscaler writes it."""
    starting = [node_type for _, node_type, _ in report.get("pending_nodes", ())]
    types = {*report.get("active_nodes", ()), *report.get("pending_launches", ()), *starting}
    return Autoscaler(frozenset(types), report.get("pending_resources", {}).get("GPU", 0) > 0)


def second_kind() -> Autoscaler:
    from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply

    reply = GetClusterStatusReply()
    reply.ParseFromString(control_store().get_cluster_status(timeout_s=ANSWER_SECONDS))
    return from_reply(reply)


def from_reply(reply: Any) -> Autoscaler:
    """`reply`: as the second autoscaler gives it. It names the types of the nodes that it adds, and what it can never add."""
    state = reply.autoscaling_state
    adding = {item.ray_node_type_name for items in (state.pending_instance_requests, state.pending_instances) for item in items}
    refused = [request.request for constraint in state.infeasible_cluster_resource_constraints for request in constraint.resource_requests]
    types = {node.ray_node_type_name for node in reply.cluster_resource_state.node_states} | adding
    return Autoscaler(frozenset(types), bool(adding) and not any("GPU" in request.resources_bundle for request in refused))


def request(bundles: list[dict[str, float]]) -> None:
    from ray.autoscaler.sdk import request_resources

    request_resources(bundles=bundles)


@contextmanager
def wishes() -> Iterator[Callable[[list[dict[str, float]]], None]]:
    """Yields what asks the autoscaler for nodes that hold some bundles of resources, in place of what was asked for before.

    At the end of the block the wish is withdrawn. The autoscaler would otherwise keep the nodes for ever."""
    asked: list[list[dict[str, float]]] = []

    def ask(bundles: list[dict[str, float]]) -> None:
        asked.append(bundles)
        in_cluster(request, bundles)

    try:
        yield ask
    finally:
        if asked:
            in_cluster(request, [])


def draining_nodes() -> set[str]:
    """Ids of the nodes that the cluster is about to take away, such as a spot instance with a notice."""
    from ray._private.state import state

    return set(state.get_draining_nodes())


def node_of(actor_id: str) -> str:
    """The id of the node that an actor, by its id in hex, runs or ran on; empty where it has none yet."""
    from ray._private.state import state

    address = state.actor_table(actor_id).get("Address", {})
    return str(address["NodeID"]) if address.get("IPAddress") else ""


def in_cluster(function: Callable[..., T], *args: Any) -> T:
    """The result of a function that talks to the cluster's control store, which a driver behind Ray Client can only do in a task."""
    import ray
    from ray.util.client import ray as client

    if not client.is_connected():
        return function(*args)
    result: T = ray.get(ray.remote(num_cpus=0)(function).remote(*args))
    return result
