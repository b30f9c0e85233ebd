"""A driver that stays connected to a cluster. Orders come in by standard input, a JSON object a line, and their results go out.

Connecting takes seconds, and a process has one Ray, which in the tests' own process is that of `ray_session`."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from typing import Any

from bulkembed.cluster import connect, room
from bulkembed.cluster.on_demand import OnDemand
from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig, RayConfig
from bulkembed.errors import BulkembedError
from bulkembed.runs.lookup import open_job
from bulkembed.runs.progress import Progress
from bulkembed.runs.run import finish

SECONDS_TO_START = 120


def run(cfg: dict[str, Any]) -> dict[str, Any]:
    """A whole run. After its first shard it says so on standard output."""
    job, planned = open_job(RunConfig.model_validate(cfg))

    def report(progress: Progress) -> None:
        if progress.shards == 1:
            print(json.dumps({"shards": 1}), flush=True)

    with ExitStack() as stack:
        executor = OnDemand(job, stack)
        summary = finish(job, planned, report, executor)
        summary.require_complete()
        pool = executor.executor.pool if executor.executor else None
        refused = pool.starts.refused if pool else {}
        nodes = sorted({pool.actors.node_of(actor) for actor in pool.free_slots}) if pool else []
    return {"documents": summary.progress.counts.documents, "lost": dict(summary.progress.lost), "refused": refused, "nodes": nodes}


def place(engine: dict[str, Any], seconds: float) -> dict[str, Any]:
    """The placement, and whether Ray holds all of it at once: actors, and a prepare and a publish task on some node."""
    import ray
    from ray.util.placement_group import placement_group, remove_placement_group

    placed = room.place(EngineConfig.model_validate(engine), RayConfig(address="auto", resource_wait_seconds=seconds))
    actor = {"CPU": placed.actor_cpus, "GPU": placed.actor_gpus}
    helpers = [{"CPU": placed.helper_cpus}] * 2 if placed.helper_cpus else []
    bundles = [{kind: amount for kind, amount in bundle.items() if amount} for bundle in [actor] * placed.replicas + helpers]
    group = placement_group(bundles)
    try:
        return asdict(placed) | {"held": group.wait(SECONDS_TO_START)}
    finally:
        remove_placement_group(group)
        while ray.available_resources().get("CPU", 0) < ray.cluster_resources()["CPU"]:
            time.sleep(0.05)


ORDERS: dict[str, Callable[..., dict[str, Any]]] = {"run": run, "place": place}


def main(address: str) -> None:
    with connect.session(RayConfig(address=address)):
        for line in sys.stdin:
            order = json.loads(line)
            started = time.monotonic()
            try:
                result = {"exit_code": 0} | ORDERS[order["order"]](**order["values"])
            except BulkembedError as error:
                result = {"exit_code": error.exit_code, "error": str(error)}
            print(json.dumps(result | {"seconds": time.monotonic() - started}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
