"""Batches of token ids -> vectors. `VLLMEmbedder` is the only user of vllm and torch, `kernels` apart."""

from __future__ import annotations

import gc
import hashlib
import math
import os
import re
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hardware, vllm_patches
from bulkembed.errors import EngineError
from bulkembed.records import Model

TokenIds = Sequence[npt.NDArray[np.int32]]
Vectors = npt.NDArray[np.float32]

CACHE_BLOCK = 32  # tokens of keys and values that are handed out at once on CPU hosts: the least that its kernels do well with
CPU_SEQUENCES = 256  # of a step, vLLM's own default
NOISE = 1 << 16  # where a simulated vector may begin, in each of two rows: 2^32 vectors
SLICE_SECONDS = 0.05  # that a simulated device sleeps at least: shorter ones would cost more than they last
# Variables that the loader, the allocator, the interpreter or OpenMP reads once, as a process starts.
READ_AT_START = re.compile(r"LD_PRELOAD|LD_LIBRARY_PATH|GLIBC_TUNABLES|MALLOC_\w+|TCMALLOC_\w+|(OMP|GOMP|KMP)_\w+|PYTHON[A-Z]+")
VLLM_POOLING = {"last": "LAST", "mean": "MEAN", "cls": "CLS"}


def unheard() -> None:
    """What is told of a document that came out where nobody listens."""


class Embedder(Protocol):
    """A loaded model. `embed` may be called from several threads at once."""

    version: str  # of the engine, and the kind of host, for the provenance
    came_out: Callable[[], None]  # called by `embed`, on any thread, for each document as its vector comes out of the engine

    def embed(self, documents: TokenIds) -> Vectors:
        """float32 of shape (documents, width), in the order given."""
        ...

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        """float32 of shape (tokens, width): what a vector is pooled from, before it is normalised."""
        ...


class VLLMEmbedder:
    """vLLM in this process, one model.

    The engine is built and called on one thread of its own: OpenMP teams belong to the thread that
    made them, and an engine built on one thread and called from another measured a quarter slower."""

    came_out: Callable[[], None] = staticmethod(unheard)

    def __init__(self, path: str, model: Model, max_tokens: int, engine: EngineConfig) -> None:
        # The processes of a local Ray are batch tasks, so that they do not preempt this thread and its OpenMP team.
        self._thread = ThreadPoolExecutor(1, "engine", initializer=os.sched_setscheduler, initargs=(0, os.SCHED_OTHER, os.sched_param(0)))
        self._width = model.width
        self._engine, self._params, self.version = self._thread.submit(build_vllm, path, model, max_tokens, engine).result()

    def embed(self, documents: TokenIds) -> Vectors:
        return self._thread.submit(self._embed, documents).result()

    def _embed(self, documents: TokenIds) -> Vectors:
        vectors = np.empty((len(documents), self._width), np.float32)
        try:
            for row, vector in pooled(self._engine, [ids.tolist() for ids in documents], self._params):
                vectors[row] = vector.numpy()
                self.came_out()
        except Exception as error:
            # Requests of this call may still be in its queues, and their vectors would come out of the next call.
            raise EngineError(f"{type(error).__name__}: {error}", "memory" if out_of_memory(error) else "engine") from error
        return vectors

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        return self._thread.submit(self._token_states, document).result()

    def _token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        from vllm import PoolingParams

        ((_, states),) = pooled(self._engine, [document.tolist()], PoolingParams(task="token_embed", use_activation=False))
        return np.asarray(states.float().numpy(), np.float32)


def pooled(llm: Any, documents: Sequence[list[int]], params: Any) -> Iterator[tuple[int, Any]]:
    """Rows of `documents`, as token ids, and the tensors that a `vllm.LLM` makes of them, in the order in which they are done.

    Asks the core of its engine: what `LLM.encode` does to each request before and after, copies of the parameters
    above all, is for requests that come from anywhere, and was a tenth of a small model's time."""
    if not all(documents):
        raise ValueError("a document without tokens")  # on which the core fails without a word
    from vllm.v1.engine import EngineCoreRequest

    core = llm.llm_engine.engine_core
    for row, ids in enumerate(documents):
        core.add_request(
            EngineCoreRequest(
                request_id=str(row),
                prompt_token_ids=ids,
                pooling_params=params,
                arrival_time=0.0,  # all at once
                mm_features=None,
                sampling_params=None,
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
            )
        )
    awaited = len(documents)
    while awaited:
        for output in core.get_output().outputs:
            yield int(output.request_id), output.pooling_output
            awaited -= 1


def out_of_memory(error: BaseException) -> bool:
    """Of the host or of a GPU; torch has no error of its own for the host's."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)


def build_vllm(path: str, model: Model, max_tokens: int, engine: EngineConfig) -> tuple[Any, Any, str]:
    vllm = imported()
    settings: dict[str, Any] = {
        "model": path,
        "runner": "pooling",
        "pooler_config": vllm.config.PoolerConfig(seq_pooling_type=VLLM_POOLING[model.pooling], use_activation=True),
        "dtype": engine.dtype,
        "max_model_len": max_tokens,
        # A prompt must fit one step: mean and CLS pooling see a document whole.
        "max_num_batched_tokens": max(engine.step_tokens, max_tokens),
        "tensor_parallel_size": engine.tensor_parallel_size,
        "load_format": "safetensors",
        # Documents share no prefix worth a look-up.
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    if engine.num_gpus is not None and 0 < engine.num_gpus < 1:
        settings["gpu_memory_utilization"] = 0.9 * engine.num_gpus  # others take the rest
    device = vllm.platforms.current_platform
    on_cpu = device.is_cpu()
    if on_cpu:
        # Compiled mode measured slower than eager on CPU, and 20 s more to load. Told the size of its cache, vLLM does
        # not run a step of the model to find it out.
        settings |= {
            "enforce_eager": True,
            "block_size": CACHE_BLOCK,
            "max_num_seqs": CPU_SEQUENCES,
            "kv_cache_memory_bytes": cache_bytes(model, max_tokens, engine),
        }
        vllm_patches.keep_few_products()
    loaded = vllm.LLM(**settings | engine.args)
    if on_cpu:
        if "ir_op_priority" not in engine.args:
            vllm_patches.fuse_norms()
        vllm_patches.fit_layers(loaded)
    return (
        loaded,
        vllm.PoolingParams(task="embed", use_activation=True),
        f"vllm {vllm.__version__} on {hardware.cpu_kind() if on_cpu else device.get_device_name()}",
    )


def imported() -> Any:
    """vLLM. Its import makes a million objects that stay: to look for garbage among them, then and while a model
    loads, took a quarter of the time of both."""
    gc.disable()
    try:
        import vllm
        import vllm.config

        _ = vllm.LLM  # imports the most
    finally:
        gc.enable()
    gc.freeze()
    return vllm


def cache_bytes(model: Model, max_tokens: int, engine: EngineConfig) -> int:
    """Of keys and values on a CPU host: `engine.kv_cache_gib`, else what the longest step takes, with a block of
    each of its sequences not full, and the one that vLLM keeps."""
    if engine.kv_cache_gib is not None:
        return engine.kv_cache_gib << 30
    tokens = max(engine.step_tokens, max_tokens) + (engine.args.get("max_num_seqs", CPU_SEQUENCES) + 1) * CACHE_BLOCK
    return int(tokens * model.cache_values * (4 if engine.dtype == "float32" else 2))


def environment(engine: EngineConfig, cpus: int | None) -> dict[str, str]:
    """What must stand in the environment of the process before vLLM is imported.

    `cpus`: cores of a CPU host that the engine may use, None on a GPU host."""
    settings = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR", "TOKENIZERS_PARALLELISM": "true"}
    if cpus is not None:
        settings |= {
            # The engine core in a process of its own doubles load time and halves the rate of small models.
            "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "OMP_NUM_THREADS": str(cpus),
            # glibc gives freed buffers back and takes them again: page faults, a fifth of the time.
            "MALLOC_TOP_PAD_": "268435456",
            "MALLOC_MMAP_THRESHOLD_": "1073741824",
            "MALLOC_TRIM_THRESHOLD_": "4294967296",
            # Each arena keeps its own holes, and there are eight a core by default. Fewer than cores, and tokenizing waits.
            "MALLOC_ARENA_MAX": str(max(2, cpus)),
            # A product is made for one number of tokens, which hardly comes again: more than one step
            # needs. Of the 1,024 that oneDNN keeps by itself memory grew as long as anybody looked.
            "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16",
        }
    return settings | engine.env


def public_environment(engine: EngineConfig, cpus: int | None) -> dict[str, str]:
    """The part of it that must stand there as the process starts, or is no secret: Ray writes what it is asked for to its logs.

    The rest of `engine.env` travels with the job, and an actor sets it itself."""
    own = environment(engine.model_copy(update={"env": {}}), cpus)
    return own | {name: value for name, value in engine.env.items() if name in own or READ_AT_START.fullmatch(name)}


@dataclass(frozen=True)
class Faults:
    """What the simulated engine does on a document that holds a token: `engine.args` of a run."""

    crash_on: int = -1  # the process ends
    hang_on: int = -1  # no answer
    raise_on: int = -1
    nan_on: int = -1
    memory_tokens: float = math.inf  # of one call: with more, memory runs out

    def strike(self, documents: TokenIds, vectors: Vectors) -> None:
        if sum(map(len, documents)) > self.memory_tokens:
            raise EngineError("MemoryError: simulated", "memory")
        for row, ids in enumerate(documents):
            if self.crash_on in ids:
                os._exit(1)
            if self.hang_on in ids:
                time.sleep(1e6)
            if self.raise_on in ids:
                raise EngineError("RuntimeError: simulated", "engine")
            if self.nan_on in ids:
                vectors[row, 0] = np.nan


class SimulatedEmbedder:
    """Takes tokens / rate seconds without using the CPU, and returns unit vectors that depend on
    nothing but the document's token ids: for dry runs, tests, and measuring everything but the model."""

    version = "simulated 2"
    came_out: Callable[[], None] = staticmethod(unheard)

    def __init__(self, width: int, tokens_per_second: float, faults: Faults | None = None) -> None:
        self._width = width
        self._seconds_per_token = 1 / tokens_per_second
        # Drawing numbers for every document took a tenth of a core that feeds a fast device.
        self._noise = np.random.Generator(np.random.Philox(0)).standard_normal((2, NOISE + width), dtype=np.float32)
        self._faults = faults
        self._device = ThreadPoolExecutor(1, thread_name_prefix="simulated-device")

    def embed(self, documents: TokenIds) -> Vectors:
        # One device: calls from several threads queue, as they would before a real one.
        return self._device.submit(self._embed, documents).result()

    def _embed(self, documents: TokenIds) -> Vectors:
        started = time.monotonic()
        vectors = np.empty((len(documents), self._width), np.float32)
        for row, ids in enumerate(documents):
            first, second = struct.unpack("<HH", hashlib.blake2b(ids.tobytes(), digest_size=4).digest())
            np.add(self._noise[0, first : first + self._width], self._noise[1, second : second + self._width], out=vectors[row])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if self._faults is not None:
            self._faults.strike(documents, vectors)
        self._wait(documents, started)
        return vectors

    def _wait(self, documents: TokenIds, started: float) -> None:
        """Until the device is through with every document; one comes out after the other, as of a real engine."""
        due = started
        for ids in documents:
            due += len(ids) * self._seconds_per_token
            ahead = due - time.monotonic()
            if ahead > SLICE_SECONDS:
                time.sleep(ahead)
            self.came_out()
        time.sleep(max(0.0, due - time.monotonic()))

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        """Every token carries its document's vector, so that any pooling gives it."""
        return np.repeat(self.embed([document]), len(document), axis=0)


def load(path: str, model: Model, max_tokens: int, engine: EngineConfig) -> Embedder:
    if engine.kind == "simulated":
        return SimulatedEmbedder(model.width, engine.tokens_per_second, Faults(**engine.args) if engine.args else None)
    return VLLMEmbedder(path, model, max_tokens, engine)
