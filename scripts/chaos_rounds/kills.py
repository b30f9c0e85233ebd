"""Processes, nodes and drivers that die."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable

import psutil

from bulkembed.dataset import paths
from scripts.chaos_rounds.nodes import processes
from scripts.chaos_rounds.scene import Scene

START_SECONDS = 6.0  # a driver is killed within these: it looks up, connects, and loads the model
PUBLISHED = ["manifest", "snapshot", "current.txt"]  # what a run writes last, in this order
POLL_SECONDS = 0.002  # between two looks at what is published


def one_process(title: str) -> Callable[[Scene], str | None]:
    """Kills one of the processes of this title. Returns None where there is none at the moment."""

    def kill(scene: Scene) -> str | None:
        candidates = list(processes(title))
        if not candidates:
            return None
        victim = scene.chance.choice(candidates)
        with contextlib.suppress(psutil.NoSuchProcess):
            victim.kill()
        return f"process {victim.pid}"

    return kill


def node(scene: Scene) -> str:
    number = scene.nodes.any(scene.chance)
    scene.nodes.replace(number, {})
    return f"node {number}"


def driver(scene: Scene) -> str:
    number = scene.chance.choice([signal.SIGKILL, signal.SIGTERM])
    scene.driver.send_signal(number)
    scene.driver.wait()
    return number.name


def driver_at_start(scene: Scene) -> str | None:
    seconds = scene.chance.uniform(0, START_SECONDS)
    if not scene.wait(seconds):
        return None
    scene.driver.kill()
    scene.driver.wait()
    return f"after {seconds:.1f} s"


def driver_while_publishing(scene: Scene) -> str | None:
    return driver_after(scene, scene.chance.choice(PUBLISHED))


def driver_after(scene: Scene, target: str) -> str | None:
    """Kills the driver as soon as it has published one of `PUBLISHED`. Returns None where it ends before."""
    before = published(scene, target)
    while scene.driver.poll() is None:
        if published(scene, target) != before:
            scene.driver.kill()
            scene.driver.wait()
            return f"after the {target}"
        time.sleep(POLL_SECONDS)
    return None


def published(scene: Scene, target: str) -> object:
    """What there is of a kind of object that a run publishes last."""
    output = scene.where.output
    if target == "manifest":
        return scene.store.names(paths.manifests_folder(output))
    if target == "snapshot":
        return scene.store.names(paths.snapshots_folder(output))
    try:
        return scene.store.version(paths.current_uri(output))
    except FileNotFoundError:
        return None
