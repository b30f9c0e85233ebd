"""The Ray of a process: how it is started and ended."""

from __future__ import annotations

import signal
import threading
import time

import pytest
import ray

from bulkembed.cluster import connect
from bulkembed.errors import ClusterError


def test_an_interrupt_of_a_start_waits_for_it_and_then_shuts_ray_down(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[tuple[str, str]] = []

    def start() -> None:
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        time.sleep(0.1)  # an interrupt that does not wait is there before
        steps.append(("started", threading.current_thread().name))

    monkeypatch.setattr(ray, "shutdown", lambda **_: steps.append(("shut down", threading.current_thread().name)))
    with pytest.raises(KeyboardInterrupt), connect.in_a_thread(start, "ray"):
        steps.append(("used", ""))
    assert steps == [("started", "ray_0"), ("shut down", "ray_0")]


def test_a_start_that_fails_is_one_line_and_is_shut_down(monkeypatch: pytest.MonkeyPatch) -> None:
    shut_down: list[bool] = []
    monkeypatch.setattr(ray, "shutdown", lambda **_: shut_down.append(True))

    def start() -> None:
        raise RuntimeError("no\n   memory")

    with (
        pytest.raises(ClusterError, match="ray: could not be started: no memory"),
        connect.in_a_thread(start, "ray: could not be started"),
    ):
        raise AssertionError("a Ray that is not there was used")
    assert shut_down == [True]


def test_handlers_that_a_library_sets_in_c_are_replaced_by_those_from_before() -> None:
    from bulkembed import process_state

    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    handlers = process_state.SignalHandlers()
    try:
        signal.signal(signal.SIGUSR1, signal.SIG_DFL)  # as C code does: the process would end
        handlers.restore()
        status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())  # noqa: PTH123, SIM115
        assert int(status["SigCgt"], 16) & 1 << (signal.SIGUSR1 - 1)
    finally:
        signal.signal(signal.SIGUSR1, before)
