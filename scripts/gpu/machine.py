"""The GPU and the versions, to be kept beside the rows."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from scripts.benchmarks.machine import machine, version_of

MORE_PACKAGES = ("transformers", "triton", "tokenizers", "sentence-transformers", "flash-attn")


def describe_machine(commit: str) -> dict[str, Any]:
    """The row `machine`. `commit` replaces that of the working tree, unless it is empty."""
    (row,) = machine()
    more = {name: version for name in MORE_PACKAGES if (version := version_of(name))}
    return row | more | {"card": card()} | ({"commit": commit} if commit else {})


def card() -> str:
    """Name, driver, memory and power limit of the GPU; empty without one."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = "--query-gpu=name,driver_version,memory.total,power.limit"
    done = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return done.stdout.strip().replace("\n", "; ")
