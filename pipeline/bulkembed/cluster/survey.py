"""Looks from every node of a cluster at the output, the source and the model: before the first shard, and where tasks were lost."""

from __future__ import annotations

import logging
from collections.abc import Collection
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


Answer = tuple[BulkembedError | None, str]  # see look_around


def look_around(job: Job, seen: Landmarks) -> Answer:
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

    answers = ask(other_nodes(), ray.put(job), seen)
    for problem, _ in answers.values():
        if problem is not None:
            raise problem
    return {node: lacks for node, (_, lacks) in answers.items() if lacks}


def unfit_among(nodes: Collection[str], job: Any, seen: Landmarks) -> dict[str, str]:
    """The nodes that may not get work, with the reasons. `job`: the reference of the Job."""
    answers = ask(nodes, job, seen)
    return {node: lacks or str(problem) for node, (problem, lacks) in answers.items() if problem is not None or lacks}


def other_nodes() -> list[str]:
    """Ids of the nodes that work, without the one that this process runs on. A driver behind Ray Client runs on none."""
    import ray
    from ray.util.client import ray as client

    here = "" if client.is_connected() else ray.get_runtime_context().get_node_id()
    return [node for node in room.working_nodes() if node != here]


def ask(nodes: Collection[str], job: Any, seen: Landmarks) -> dict[str, Answer]:
    """What `look_around` finds on each of the nodes; nothing of those that take too long or go away. `job`: the reference of the Job."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(look_around)
    options = ((node, {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}) for node in nodes)
    asked = {task.options(**strategy).remote(job, seen): node for node, strategy in options}
    answers: dict[str, Answer] = {}
    waiting = list(asked)
    for _ in range(int(ANSWER_SECONDS / POLL_SECONDS)):
        done, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=POLL_SECONDS) if waiting else ([], [])
        answers |= {asked[reference]: answer_of(asked[reference], reference) for reference in done}
        if not waiting:
            break
        stopping.stop.check()
    return answers


def answer_of(node: str, reference: Any) -> Answer:
    import ray
    from ray.exceptions import RayError, RaySystemError

    try:
        answer: Answer = ray.get(reference)
    except RaySystemError as error:  # its Python cannot read the call
        return None, f"node {node} cannot run bulkembed: {last_line(error)}; install the same version on every node"
    except RayError as error:  # the node went away, or cannot run anything; so do its actors
        log.warning("bulkembed: node %s does not answer: %s", node, last_line(error))
        return None, ""
    return answer
