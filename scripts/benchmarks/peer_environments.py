"""What the peers import and this project does not, each made by pip on first use in a folder of its own."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from scripts.benchmarks.material import WORK

# `ray.data` imports pandas, which brings nothing else that the project's own environment lacks.
RAY_DATA = ["pandas==3.1.1"]

# A virtual environment of its own: optimum-intel pins an older transformers than vLLM.
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
    """A folder for PYTHONPATH. Raises RuntimeError where something cannot be installed."""
    folder = WORK / "ray-extras"
    if begun(folder):
        pip(Path(sys.executable), "install", "--no-deps", "--target", str(folder), *RAY_DATA)
        finish(folder)
    return folder


def openvino() -> Path:
    """The Python of an environment with sentence-transformers' OpenVINO backend. Raises RuntimeError likewise."""
    folder = WORK / "openvino-venv"
    python = folder / "bin" / "python"
    if begun(folder):
        call(sys.executable, "-m", "venv", str(folder))
        pip(python, "install", TORCH)  # alone: each look-up in an index that cannot be reached takes seconds
        pip(python, "install", TORCH, *OPENVINO)
        pip(python, "uninstall", "--yes", "torchvision")  # breaks the import of transformers beside a CPU build of torch
        finish(folder)
    return python


def begun(folder: Path) -> bool:
    """Whether `folder` is to be filled; what an interrupted installation left is removed."""
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
