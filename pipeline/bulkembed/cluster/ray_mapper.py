"""A mapper on Ray: functions run as tasks, on any node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bulkembed import stopping
from bulkembed.cluster.ray_errors import last_line
from bulkembed.errors import BulkembedError
from bulkembed.package_files import Package, installed

T = TypeVar("T")
R = TypeVar("R")

MIN_WAITING = 64
TASKS_PER_CORE = 2  # that wait or run, so that no core is idle while the driver reads a result
MAX_RETRIES = 5  # of a task whose process or node is lost: what the mapped functions write is created once
POLL_SECONDS = 1.0  # the longest time until a signal is noticed


class RayMapper:
    """Runs functions as tasks of the connected Ray, one core each. An exception of a task is raised as it is."""

    def map(self, task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        import ray

        remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(call)
        function = ray.put(task)  # once: it may hold the keys of many objects
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(remote.remote(installed(), function, item))
                if len(waiting) >= max_waiting():
                    yield result_of(waiting.popleft())
            while waiting:
                yield result_of(waiting.popleft())
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def call(planned: Package, task: Callable[[T], R], item: T) -> R:
    """Ray replaces a reference by its value where it is an argument itself. Raises ConfigError on a node with another package."""
    planned.require_here()
    return task(item)


def max_waiting() -> int:
    """How many tasks wait or run. A cluster that grows looks at the tasks that wait, so there are many from the start."""
    import ray

    return max(MIN_WAITING, TASKS_PER_CORE * int(ray.cluster_resources().get("CPU", 0)))


def result_of(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RayTaskError

    while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
        stopping.stop.check()
    try:
        return ray.get(reference)
    except RayTaskError as failed:
        raise failed.cause from failed
    except RayError as lost:
        raise BulkembedError(f"a task was lost {MAX_RETRIES + 1} times: {last_line(lost)}") from lost
