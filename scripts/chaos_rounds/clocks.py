"""Hosts whose clocks are off by hours, as Python code sees them."""

from __future__ import annotations

import os
import random
from pathlib import Path

from scripts.chaos_rounds.scene import Scene

FOLDER = Path(__file__).parent / "skewed_clock"
MAX_HOURS = 48.0


def skewed(chance: random.Random) -> tuple[dict[str, str], str]:
    """The environment of processes whose clock is off, and by how much. Times of files and monotonic clocks stay right."""
    hours = chance.uniform(-MAX_HOURS, MAX_HOURS)
    env = {"PYTHONPATH": f"{FOLDER}:{os.environ.get('PYTHONPATH', '')}", "CHAOS_CLOCK_SECONDS": str(round(3600 * hours))}
    return env, f"{hours:+.1f} h"


def driver(scene: Scene) -> str:
    """The clock of the next driver is off."""
    scene.env_of_next_start, what = skewed(scene.chance)
    return what


def node(scene: Scene) -> str:
    """A node goes, and one whose clock is off comes."""
    env, what = skewed(scene.chance)
    scene.nodes.replace(scene.nodes.any(scene.chance), env)
    return what
