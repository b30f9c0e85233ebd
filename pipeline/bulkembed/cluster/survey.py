"""Looks from every node of a cluster at the output, the source and the model, before the first shard."""

from __future__ import annotations

import logging
from typing import Any

from bulkembed import stopping
from bulkembed.cluster import room
from bulkembed.cluster.ray_errors import last_line
from bulkembed.errors import BulkembedError, ModelError
from bulkembed.runs import landmarks
from bulkembed.runs.job import Job
from bulkembed.runs.landmarks import Landmarks

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0  # the longest time until a signal is noticed
ANSWER_SECONDS = 60.0  # a node that takes longer is passed over: its actors look again before they load the model


def look_around(job: Job, seen: Landmarks) -> tuple[BulkembedError | None, str]:
    """What is wrong with this node's output or source, or None; and what it lacks beside."""
    if missing := landmarks.lacks(job):
        return None, missing
    try:
        landmarks.require_seen(job, seen)
    except BulkembedError as error:
        return error, ""
    return None, ""


def unfit_nodes(job: Job, seen: Landmarks) -> list[str]:
    """The ids of the nodes that lack the model or the driver's bulkembed: no work goes there.

    The driver's own node is not asked: it sees what the driver sees. Raises ConfigError or SourceError naming a host whose output or
    source is another place than the driver's, ModelError where no node has the model."""
    lacking = look_from_every_node(job, seen)
    for reason in lacking.values():
        log.warning("bulkembed: a node is left out: %s", reason)
    if lacking and lacking.keys() == set(room.working_nodes()):
        raise ModelError(f"no node of the cluster can embed: {next(iter(lacking.values()))}")
    return list(lacking)


def look_from_every_node(job: Job, seen: Landmarks) -> dict[str, str]:
    """What nodes lack, by their ids. Raises ConfigError or SourceError as `unfit_nodes` does."""
    import ray

    nodes = other_nodes()
    answers = dict(zip(start(nodes, job, seen), nodes, strict=True)) if nodes else {}
    lacking: dict[str, str] = {}
    waiting = list(answers)
    for _ in range(int(ANSWER_SECONDS / POLL_SECONDS)):
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS) if waiting else ([], [])
        for reference in done:
            lacking |= found(answers[reference], reference)
        if not waiting:
            break
        stopping.stop.check()
    return lacking


def other_nodes() -> list[str]:
    """Ids of the nodes that work, without the one that this process runs on. A driver behind Ray Client runs on none."""
    import ray
    from ray.util.client import ray as client

    here = "" if client.is_connected() else ray.get_runtime_context().get_node_id()
    return [node for node in room.working_nodes() if node != here]


def start(nodes: list[str], job: Job, seen: Landmarks) -> list[Any]:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    reference = ray.put(job)
    task = ray.remote(num_cpus=0, max_retries=0)(look_around)
    return [task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(reference, seen) for node in nodes]


def found(node: str, reference: Any) -> dict[str, str]:
    """The node, with what it lacks of the model, if anything."""
    import ray
    from ray.exceptions import RayError

    try:
        problem, lacks = ray.get(reference)
    except RayError as error:  # the node went away, or cannot run anything; so do its actors
        log.warning("bulkembed: node %s does not answer: %s", node, last_line(error))
        return {}
    if problem is not None:
        raise problem
    return {node: lacks} if lacks else {}
