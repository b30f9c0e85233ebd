"""Packages that peers import and this project does not. pip installs each set on first use, in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from scripts.benchmarks.material import WORK

# `ray.data` imports pandas. The project's own environment has all that pandas needs.
RAY_DATA = ["pandas==3.1.1"]

# These need a virtual environment of their own: optimum-intel pins an older transformers than vLLM.
TORCH = "torch==2.13.0+cpu"
OPENVINO = [
    "openvino==2026.4.1",
    "optimum-intel==2.2.0",
    "optimum==2.3.0",
    "pyarrow==26.0.1",
    "sentence-transformers==6.2.0",
    "torchvision==0.28.0",
    "transformers==5.5.4",
]


def ray_data() -> Path:
    """A folder for PYTHONPATH. Raises RuntimeError where a package cannot be installed."""
    folder = WORK / "ray-extras"
    if must_fill(folder):
        pip(Path(sys.executable), "install", "--no-deps", "--target", str(folder), *RAY_DATA)
        finish(folder)
    return folder


def openvino() -> Path:
    """The Python of an environment with sentence-transformers' OpenVINO backend. Raises RuntimeError like `ray_data`."""
    folder = WORK / "openvino-venv"
    python = folder / "bin" / "python"
    if must_fill(folder):
        call(sys.executable, "-m", "venv", str(folder))
        pip(python, "install", TORCH)  # alone: every look-up in an unreachable index takes seconds
        pip(python, "install", TORCH, *OPENVINO)
        pip(python, "uninstall", "--yes", "torchvision")  # beside a CPU build of torch it breaks the import of transformers
        finish(folder)
    return python


def must_fill(folder: Path) -> bool:
    """Whether packages must be installed in `folder`. Removes what an interrupted installation left."""
    if (folder / ".complete").exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True


def finish(folder: Path) -> None:
    (folder / ".complete").touch()


def pip(python: Path, *arguments: str) -> None:
    call(str(python), "-m", "pip", "--no-input", *arguments)


def call(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        errors = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
        raise RuntimeError(f"{' '.join(command)}: {errors[-1] if errors else done.stderr[-300:]}")
