"""Nodes that have another bulkembed than the driver: another version, or other files of the same version."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import bulkembed
from scripts.chaos_rounds.material import WORK
from scripts.chaos_rounds.scene import Scene

CHANGES = {"version": '\n__version__ = "0.0.0"\n', "files": "\n# Another build.\n"}  # what is added to the front of the package


@contextlib.contextmanager
def other(scene: Scene) -> Iterator[str]:
    """A node goes, and one with another bulkembed comes. In the end that goes as well, and one with the right package comes."""
    what, number = scene.chance.choice(list(CHANGES)), scene.nodes.any(scene.chance)
    scene.nodes.replace(number, {"PYTHONPATH": f"{changed_package(what)}:{os.environ.get('PYTHONPATH', '')}"})
    try:
        yield f"other {what} on node {number}"
    finally:
        scene.nodes.replace(number, {})


def changed_package(what: str) -> Path:
    """A folder with a copy of bulkembed that is not quite the same."""
    folder = WORK / f"other-{what}"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(Path(bulkembed.__file__).parent, folder / "bulkembed", ignore=shutil.ignore_patterns("__pycache__"))
    with (folder / "bulkembed" / "__init__.py").open("a", encoding="utf-8") as file:
        file.write(CHANGES[what])
    return folder
