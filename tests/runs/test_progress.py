"""The rate and the time left of a run do not depend on the clocks of its hosts."""

from __future__ import annotations

import time

import pytest

from bulkembed.records import Counts, Receipt
from bulkembed.runs.progress import Progress


def receipt(number: int, started: float, seconds: float) -> Receipt:
    counts = Counts(rows=10, documents=10, vectors=10, tokens=1000)
    return Receipt(f"shard-{number}", "", counts, 1, "", {}, started, started + seconds, {})


@pytest.mark.parametrize("hours", [0, -30, 30])
def test_a_host_whose_clock_is_off_does_not_change_the_rate(monkeypatch: pytest.MonkeyPatch, hours: float) -> None:
    progress, now = Progress(rows_total=100), 500.0
    for number in range(5):  # two hosts in turn: a shard of 2 s ends every second
        now += 1
        monkeypatch.setattr(time, "monotonic", lambda now=now: now)
        progress.add(receipt(number, now + 3600 * hours * (number % 2), 2))
    assert progress.tokens_per_second == pytest.approx(5000 / 6)
    assert progress.eta_seconds == pytest.approx(5000 / (5000 / 6))
