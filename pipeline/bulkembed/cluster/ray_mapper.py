"""A mapper on Ray: functions run as tasks, on any node."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from bulkembed import stopping
from bulkembed.cluster.ray_errors import last_line
from bulkembed.errors import BulkembedError

T = TypeVar("T")
R = TypeVar("R")

TASKS_PER_CORE = 2  # that wait or run, so that no core is idle while the driver reads a result
MAX_RETRIES = 5  # of a task whose process or node is lost: what the mapped functions write is created once
POLL_SECONDS = 1.0  # the longest time until a signal is noticed


class RayMapper:
    """Runs functions as tasks of the connected Ray, one core each. An exception of a task is raised as it is."""

    def map(self, task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        import ray

        remote = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(call)
        function = ray.put(task)
        limit = TASKS_PER_CORE * max(1, int(ray.cluster_resources().get("CPU", 1)))
        waiting: deque[Any] = deque()
        try:
            for item in items:
                waiting.append(remote.remote(function, item))
                if len(waiting) >= limit:
                    yield result_of(waiting.popleft())
            while waiting:
                yield result_of(waiting.popleft())
        finally:
            for reference in waiting:
                ray.cancel(reference, force=True)


def call(task: Callable[[T], R], item: T) -> tuple[R | None, BulkembedError | None]:
    """The result of a task, or its error as a value: an exception would come back wrapped in one of Ray's."""
    try:
        return task(item), None
    except BulkembedError as error:
        return None, error


def result_of(reference: Any) -> Any:
    import ray
    from ray.exceptions import RayError, RayTaskError

    while not ray.wait([reference], timeout=POLL_SECONDS)[0]:
        stopping.stop.check()
    try:
        result, error = ray.get(reference)
    except RayTaskError as error:
        raise error.cause from None  # a fault of the code, which its own traceback shows
    except RayError as lost:
        raise BulkembedError(f"a task was lost again and again: {last_line(lost)}") from lost
    if error is not None:
        raise error
    return result
