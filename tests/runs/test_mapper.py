"""The mapper of one process: results in order, few at once, the first error."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from bulkembed.runs.mapper import LocalMapper


def test_results_come_in_the_order_of_the_items() -> None:
    def slow_at_first(item: int) -> int:
        time.sleep(0.01 / (item + 1))
        return 2 * item

    assert list(LocalMapper(4).map(slow_at_first, range(20))) == list(range(0, 40, 2))
    assert not list(LocalMapper().map(slow_at_first, []))


def test_items_are_taken_as_results_are_read() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for item in range(100):
            taken.append(item)
            yield item

    results = LocalMapper(2).map(abs, items())
    assert next(results) == 0
    assert len(taken) == 4
    assert sum(1 for _ in results) == 99


def test_the_first_error_is_raised_and_nothing_more_is_begun() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def fail(item: int) -> None:
        with lock:
            begun.append(item)
        raise ValueError(item)

    with pytest.raises(ValueError, match=r"^0$"):
        list(LocalMapper(2).map(fail, range(100)))
    assert len(begun) <= 4
