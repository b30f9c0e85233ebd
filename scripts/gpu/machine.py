"""The card and the versions that rows are of."""

from __future__ import annotations

import shutil
import subprocess
from typing import Any

from scripts.benchmarks.machine import machine, version_of

MORE_PACKAGES = ("transformers", "triton", "tokenizers", "sentence-transformers", "flash-attn")


def describe_machine(named: str) -> dict[str, Any]:
    (found,) = machine()
    more = {name: version for name in MORE_PACKAGES if (version := version_of(name))}
    return found | more | {"card": card()} | ({"commit": named} if named else {})


def card() -> str:
    """Name, driver, memory and power limit; empty without a GPU."""
    if shutil.which("nvidia-smi") is None:
        return ""
    query = "--query-gpu=name,driver_version,memory.total,power.limit"
    found = subprocess.run(["nvidia-smi", query, "--format=csv,noheader"], capture_output=True, text=True, check=False)
    return found.stdout.strip().replace("\n", "; ")
