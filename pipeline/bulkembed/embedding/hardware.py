"""What this host computes with, as far as it decides how fast a model runs and which bits come out."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Literal

CPU_INFORMATION = Path("/proc/cpuinfo")
DEVICES = Path("/dev")
# Widest first. Without one of the first three, bfloat16 is made of float32 operations: 7 times slower than float32 itself.
BFLOAT16_UNITS = ("amx_bf16", "avx512_bf16", "bf16")  # "bf16": ARM
UNITS = (*BFLOAT16_UNITS, "avx512f", "avx2")


def unit() -> str | None:
    """The CPU's widest unit for matrices."""
    words = set(CPU_INFORMATION.read_text(encoding="utf-8").split())
    return next((name for name in UNITS if name in words), None)


def cpu_kind() -> str:
    """`x86_64 CPU with avx2`."""
    found = unit()
    return f"{platform.machine()} CPU{f' with {found}' if found else ''}"


def has_gpu() -> bool:
    return any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "kfd").exists()


def cluster_address(configured: str | None) -> str | None:
    """The address of the cluster to join, or None for a Ray of this host's own: where it says "local", or nothing in RAY_ADDRESS either."""
    address = (configured or "").strip() or os.environ.get("RAY_ADDRESS", "").strip()
    return None if address.lower() in ("", "local") else address


def engine_dtype(address: str | None) -> Literal["bfloat16", "float32"]:
    """What a model runs fastest in. `address`, or RAY_ADDRESS: of a cluster, whose hosts are taken to have bfloat16,
    as every GPU and recent server CPU does."""
    return "bfloat16" if cluster_address(address) or has_gpu() or unit() in BFLOAT16_UNITS else "float32"
