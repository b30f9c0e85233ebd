"""A task on many items, in threads that wait for the store side by side."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(task: Callable[[Item], Result], items: Iterable[Item], max_ahead: int) -> Iterator[Result]:
    """The results in the order of the items. At most `max_ahead` of them are there before they are asked for."""
    with ThreadPoolExecutor(max_ahead) as pool:
        waiting: deque[Future[Result]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(task, item))
                if len(waiting) > max_ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
