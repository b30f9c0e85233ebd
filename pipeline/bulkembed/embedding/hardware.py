"""This host's matrix instructions, cores and GPUs. They decide how fast a model runs, and the last bits of its vectors."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Literal

from bulkembed.config.recipe import EngineDtype

CPU_INFORMATION = Path("/proc/cpuinfo")
DEVICES = Path("/dev")
CGROUPS = Path("/sys/fs/cgroup")
CPU_QUOTAS = (("cpu.max",), ("cpu/cpu.cfs_quota_us", "cpu/cpu.cfs_period_us"))  # each gives two numbers: version 2 of cgroups, and 1
MEMORY_LIMITS = ("memory.max", "memory/memory.limit_in_bytes")  # version 2 of cgroups, and 1
UNLIMITED_BYTES = 1 << 60  # version 1 has no word for no limit, but the largest number
# CPU flags, widest first. A CPU without native bfloat16 emulates it with float32 operations, 7 times slower than float32 itself.
BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16", "bf16")  # "bf16" is ARM's
MATRIX_INSTRUCTIONS = (*BFLOAT16_INSTRUCTIONS, "avx512f", "avx2")


def matrix_instructions() -> str | None:
    """The CPU flag of the widest instructions for matrices."""
    flags = set(CPU_INFORMATION.read_text(encoding="utf-8").split())
    return next((name for name in MATRIX_INSTRUCTIONS if name in flags), None)


def cpu_kind() -> str:
    """The kind of this host's CPU for the provenance, such as `x86_64 CPU with avx2`."""
    instructions = matrix_instructions()
    return f"{platform.machine()} CPU{f' with {instructions}' if instructions else ''}"


def usable_cores() -> int:
    """How many cores this process may use: those of its affinity, or fewer where its container has a quota. It is at least 1."""
    quota = cpu_quota()
    cores = len(os.sched_getaffinity(0))
    return cores if quota is None else max(1, min(cores, int(quota)))


def cpu_quota() -> float | None:
    """The cores that the container may use, such as 0.5; None where it has no quota."""
    for files in CPU_QUOTAS:
        try:
            words = " ".join((CGROUPS / name).read_text(encoding="ascii") for name in files).split()
        except OSError:
            continue
        return float(words[0]) / float(words[1]) if len(words) == 2 and all(map(str.isdigit, words)) else None
    return None


def memory_limit() -> int | None:
    """The bytes of memory that the container may use; None where it has no limit."""
    for name in MEMORY_LIMITS:
        try:
            text = (CGROUPS / name).read_text(encoding="ascii").strip()
        except OSError:
            continue
        return int(text) if text.isdigit() and int(text) < UNLIMITED_BYTES else None
    return None


def usable_memory() -> int:
    """The bytes of memory that this process may use: those of the host, or fewer where its container has a limit."""
    host = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(host, memory_limit() or host)


def has_gpu() -> bool:
    """Whether this host has a GPU of NVIDIA or AMD."""
    return any(DEVICES.glob("nvidia[0-9]*")) or (DEVICES / "kfd").exists()


def cluster_address(configured: str | None) -> str | None:
    """The address of the cluster to join: `configured`, or else RAY_ADDRESS. None: start a Ray on this host.

    Both "local" and an empty text mean a Ray on this host."""
    address = (configured or "").strip() or os.environ.get("RAY_ADDRESS", "").strip()
    return None if address.lower() in ("", "local") else address


def resolved_dtype(asked: Literal["auto", "bfloat16", "float16", "float32"], address: str | None) -> EngineDtype:
    """The engine dtype of the configuration. `auto` becomes the dtype that is fastest on the hosts of the run."""
    return engine_dtype(address) if asked == "auto" else asked


def engine_dtype(address: str | None) -> Literal["bfloat16", "float32"]:
    """The dtype in which a model runs fastest: on this host, or on the cluster at `address` or RAY_ADDRESS.

    The hosts of a cluster are assumed to have bfloat16, as every GPU and every recent server CPU has."""
    return "bfloat16" if cluster_address(address) or has_gpu() or matrix_instructions() in BFLOAT16_INSTRUCTIONS else "float32"
