"""Mappers run one function on many items: the protocol, and the mapper of one process."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class Mapper(Protocol):
    """Runs a function on items, on Ray or in this process. Function, items and results must be values that can be sent."""

    def map(self, task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        """Yields the results in the order of the items. Raises the first exception of `task`."""
        ...


class LocalMapper:
    """Runs a function in a few threads of this process. At most twice as many results as threads wait for the reader."""

    def __init__(self, threads: int = 2) -> None:
        self.threads = threads

    def map(self, task: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
        pool = ThreadPoolExecutor(self.threads)
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(task, item))
                if len(waiting) >= 2 * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)
