"""Processes that stand still for longer than leases and stalls, and then go on."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator

import psutil

from scripts.chaos_rounds.nodes import processes
from scripts.chaos_rounds.scene import Scene


def one_process(title: str) -> Callable[[Scene], contextlib.AbstractContextManager[str | None]]:
    """Stops one of the processes of this title. Nothing happens where there is none at the moment."""

    @contextlib.contextmanager
    def pause(scene: Scene) -> Iterator[str | None]:
        candidates = list(processes(title))
        if not candidates:
            yield None
            return
        victim = scene.chance.choice(candidates)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.suspend()
        try:
            yield f"process {victim.pid}"
        finally:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.resume()

    return pause


@contextlib.contextmanager
def driver(scene: Scene) -> Iterator[str]:
    """Stops the driver. A second run begins meanwhile, and takes its line over."""
    scene.driver.send_signal(signal.SIGSTOP)
    rival = scene.start()
    scene.rivals[scene.starts] = rival
    try:
        yield f"start {scene.starts} begins meanwhile"
    finally:
        scene.driver.send_signal(signal.SIGCONT)
