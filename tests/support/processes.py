"""The command line, and servers, as processes of their own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parent.parent.parent


def bulkembed(*arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs the command line as a user does."""
    command = [sys.executable, "-m", "bulkembed", *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=280)


def wait_for_port(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while server.poll() is None and time.monotonic() < deadline:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise AssertionError("moto_server did not start")


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
