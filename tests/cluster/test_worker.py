"""The clock that ends the process of an engine that hangs, in processes of their own: it ends them without a word to Python."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest

from bulkembed.cluster.worker import Watchdog
from bulkembed.embedding.simulated import SimulatedEmbedder
from tests.support.processes import ROOT

PROGRAM = """
import sys, time
import numpy as np
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.cluster.worker import Watchdog


class Stuck(SimulatedEmbedder):
    def embed(self, documents):
        for _ in documents:
            time.sleep(0.3)
            self.on_vector()
        time.sleep(60)


kind, seconds, documents = SimulatedEmbedder if sys.argv[1] == "slow" else Stuck, float(sys.argv[2]), int(sys.argv[3])
watchdog = Watchdog(kind(8, 1000), seconds)
print("begins", flush=True)
watchdog.embed([np.arange(300, dtype=np.int32)] * documents)  # 0.3 s each
time.sleep(seconds * 1.5)  # the clock stands still where no call is under way
print("survived")
"""


def run(*arguments: object) -> tuple[int, str, float]:
    """Exit code, what was printed, and the seconds since the call began."""
    command = [sys.executable, "-c", PROGRAM, *map(str, arguments)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begins\n"
    started = time.monotonic()
    printed, _ = process.communicate(timeout=60)
    return process.returncode, printed, time.monotonic() - started


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[tuple[int, str, float]]]]:
    """All of them beside each other: most of their time is spent asleep."""
    with ThreadPoolExecutor() as pool:
        yield {
            "slow": pool.submit(run, "slow", 1, 10),
            "stuck": pool.submit(run, "stuck", 1, 5),
            "too slow": pool.submit(run, "slow", 0.1, 1),
        }


def test_a_slow_engine_is_not_taken_for_one_that_hangs(runs: dict[str, Future[tuple[int, str, float]]]) -> None:
    assert runs["slow"].result()[:2] == (0, "survived\n")


def test_an_engine_that_hangs_after_some_documents_is_ended(runs: dict[str, Future[tuple[int, str, float]]]) -> None:
    code, printed, seconds = runs["stuck"].result()
    assert (code, printed) == (1, "")
    assert 2.4 < seconds < 10


def test_one_document_that_takes_too_long_is_a_hang(runs: dict[str, Future[tuple[int, str, float]]]) -> None:
    assert runs["too slow"].result()[0] == 1


def test_the_clock_is_set_once_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    settings: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda seconds, exit: settings.append(seconds))
    watchdog = Watchdog(SimulatedEmbedder(8, 1e9), 100)
    watchdog.embed([np.arange(3, dtype=np.int32)] * 10_000)
    assert settings == [101]
