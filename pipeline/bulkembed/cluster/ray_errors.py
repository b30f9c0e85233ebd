"""What an error of Ray says about a process that is gone."""

from __future__ import annotations

import re

from bulkembed.records import Cause

# Ray has no field for a lost node, only words.
NODE_LOST = re.compile(r"node (has |was |is )?(died|dead|terminated|drained|preempted)", re.IGNORECASE)


def cause_of(error: Exception) -> Cause:
    """Why the process is gone, as far as Ray says."""
    from ray import exceptions

    if isinstance(error, exceptions.OutOfMemoryError):
        return "memory"
    if isinstance(error, exceptions.RayActorError):
        if "ray.kill" in str(error):  # the actor pool killed it because of another shard
            return "bystander"
        node_lost = error.preempted or isinstance(error, exceptions.ActorUnavailableError) or NODE_LOST.search(str(error))
        return "node" if node_lost else "engine"
    return "engine" if isinstance(error, exceptions.WorkerCrashedError) else "node"


def last_line(error: Exception) -> str:
    """The message's last line, without the general advice that Ray adds about memory."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1].split(" Some common causes include")[0] if lines else type(error).__name__
