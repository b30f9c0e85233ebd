"""The clock that ends the process of an engine that hangs, once in a process of its own: it ends it without a word to Python."""

from __future__ import annotations

import math
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from bulkembed.cluster.worker import Watchdog
from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.simulated import SimulatedEmbedder
from tests.support.processes import PATIENCE, ROOT

STUCK = """
import time
import numpy as np
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.cluster.worker import Watchdog


class Stuck(SimulatedEmbedder):
    def embed(self, documents):
        for _ in documents:
            self.on_vector()
        print("stuck", flush=True)
        time.sleep(600)


Watchdog(Stuck(8, 1000), 1).embed([np.arange(300, dtype=np.int32)] * 5)
"""


def test_an_engine_that_hangs_after_some_documents_is_ended() -> None:
    ran = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (ran.returncode, ran.stdout) == (1, "stuck\n")


class Clock:
    """A time of its own, which passes while somebody sleeps, and the clock of `faulthandler` that goes by it."""

    def __init__(self) -> None:
        self.now, self.due, self.is_over = 0.0, math.inf, False

    def set(self, seconds: float, exit: bool) -> None:
        self.due = self.now + seconds

    def stop(self) -> None:
        self.due = math.inf

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.is_over |= self.now >= self.due


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    for module in ("bulkembed.cluster.worker", "bulkembed.embedding.simulated"):
        monkeypatch.setattr(f"{module}.time", SimpleNamespace(monotonic=lambda: clock.now, sleep=clock.sleep))
    monkeypatch.setattr("faulthandler.dump_traceback_later", clock.set)
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", clock.stop)
    return clock


@pytest.mark.parametrize(("seconds", "documents", "is_over"), [(1, 10, False), (0.1, 1, True)])
def test_a_slow_engine_is_no_hang_but_one_document_that_takes_too_long_is(
    clock: Clock, seconds: float, documents: int, is_over: bool
) -> None:
    """A document takes 0.3 s. The clock stands still where no call is under way."""
    watchdog = Watchdog(SimulatedEmbedder(8, 1000), seconds)
    for _ in range(2):
        watchdog.embed([np.arange(300, dtype=np.int32)] * documents)
        assert clock.is_over == is_over
        clock.sleep(100)
    assert clock.is_over == is_over


def test_the_clock_runs_from_the_last_document_on(clock: Clock) -> None:
    class Stuck(SimulatedEmbedder):
        def embed(self, documents: TokenIds) -> Vectors:
            super().embed(documents)
            clock.sleep(0.9)
            assert not clock.is_over
            clock.sleep(0.3)
            return super().embed(documents)

    Watchdog(Stuck(8, 1000), 1).embed([np.arange(300, dtype=np.int32)] * 5)
    assert clock.is_over


def test_the_clock_is_set_once_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, exit: settings.append(seconds))
    watchdog = Watchdog(SimulatedEmbedder(8, 1e9), 100)
    watchdog.embed([np.arange(3, dtype=np.int32)] * 10_000)
    assert settings == [101]
