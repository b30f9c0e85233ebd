"""Environment variables that a process needs before it imports vLLM."""

from __future__ import annotations

import re

from bulkembed.config.sections import EngineConfig

# The loader, the allocator, the interpreter and OpenMP read these variables once, when a process starts.
READ_AT_START = re.compile(r"LD_PRELOAD|LD_LIBRARY_PATH|GLIBC_TUNABLES|MALLOC_\w+|TCMALLOC_\w+|(OMP|GOMP|KMP)_\w+|PYTHON[A-Z]+")


def engine_environment(engine: EngineConfig, cpus: int | None) -> dict[str, str]:
    """All variables of an embedding process, `engine.env` included.

    `cpus`: cores of a CPU host that the engine may use; None on a GPU host."""
    settings = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "true"}
    # gloo listens at the address of the host's name, and NCCL at any but loopback. An engine is on one host.
    settings |= {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}
    if cpus is not None:
        settings |= {
            # An engine core in its own process takes twice as long to load and halves the rate of small models.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(cpus),
            # By default glibc returns freed buffers to the system and requests them again. The page faults took a fifth of the time.
            "MALLOC_TOP_PAD_": "268435456",
            "MALLOC_MMAP_THRESHOLD_": "1073741824",
            "MALLOC_TRIM_THRESHOLD_": "4294967296",
            # Every arena fragments separately, and the default is eight per core. With fewer arenas than cores, tokenizing waits.
            "MALLOC_ARENA_MAX": str(max(2, cpus)),
            # oneDNN prepares a GEMM for each number of tokens, and a number seldom repeats. 16 is more than one step needs.
            # With the default of 1,024 memory grew for as long as it was measured.
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
        }
    return settings | engine.env


def public_environment(engine: EngineConfig, cpus: int | None) -> dict[str, str]:
    """The variables that Ray may set: our own, and those of `engine.env` that count only when a process starts.

    Ray writes the variables that it is asked for to its logs, and `engine.env` may hold secrets. So the rest of
    `engine.env` travels with the job, and the actor sets it."""
    own = engine_environment(engine.model_copy(update={"env": {}}), cpus)
    return own | {name: value for name, value in engine.env.items() if name in own or READ_AT_START.fullmatch(name)}
