"""The command line, and servers, as processes of their own."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = 240.0  # seconds that a test waits for what must come: a busy host takes its time, and only a fault takes longer
# Below those that the system gives to whoever asks for none, and above those of Ray's workers: nobody else takes them.
PORTS = range(20_000, 32_000)
TRIED = itertools.count(os.getpid() * 97)


def bulkembed(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user does."""
    command = [sys.executable, "-m", "bulkembed", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=PATIENCE)


def wait_until(condition: Callable[[], object], what: str) -> None:
    """Waits for `condition`, and fails by the name `what` where it does not come."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def wait_until_taken(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Waits until a process has taken a signal that it waits for. Of two that wait for it, the lower number comes first."""

    def is_pending() -> bool:
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        (pending,) = (int(line.split()[1], 16) for line in lines if line.startswith("ShdPnd:"))
        return bool(pending >> (number - 1) & 1)

    wait_until(lambda: process.poll() is not None or not is_pending(), f"{number.name} is taken")


def free_port() -> int:
    """A port that nobody listens at, and that is not given again to another test of this process."""
    while True:
        port = PORTS[next(TRIED) % len(PORTS)]
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    def answers() -> bool:
        assert server.poll() is None, "the server has ended"
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_until(answers, "the server listens")


def processes_of_own_ray() -> list[psutil.Process]:
    """Processes of the Ray that `ray_session` has started, and other children; without those of the fixture `head`, a Ray of its own."""
    me = psutil.Process()
    heads = [child for child in me.children() if "ray.scripts.scripts" in command_of(child)]
    others = {process for head in heads for process in (head, *head.children(recursive=True))}
    return [process for process in me.children(recursive=True) if process not in others]


def command_of(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.NoSuchProcess:
        return []


def listening_addresses(process: psutil.Process) -> set[str]:
    """Addresses that a process listens at; none where it has ended meanwhile."""
    try:
        return {connection.laddr.ip for connection in process.net_connections("inet") if connection.status == psutil.CONN_LISTEN}
    except psutil.NoSuchProcess:
        return set()
