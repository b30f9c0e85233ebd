"""vLLM as an embedder: builds an engine for a model and asks it for vectors."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hardware, vllm_patches
from bulkembed.embedding.embedder import TokenIds, Vectors, ignore_vector
from bulkembed.embedding.weight_files import values_in
from bulkembed.errors import EngineError, ModelError
from bulkembed.records import Model

KV_BLOCK_TOKENS = 32  # tokens of a KV cache block on CPU hosts: the smallest size with which vLLM's CPU kernels are fast
ENGINE_BYTES = 600 << 20  # what vLLM and its libraries take without a model
MAX_CPU_SEQUENCES = 256  # documents in one step on CPU hosts; vLLM's own default
VLLM_POOLING = {"last": "LAST", "mean": "MEAN", "cls": "CLS"}

T = TypeVar("T")


class VLLMEmbedder:
    """A vLLM engine in this process, with one model.

    One thread builds the engine and makes every call to it. OpenMP thread teams belong to the thread that created
    them: an engine that one thread built and another called was a quarter slower."""

    on_vector: Callable[[], None] = staticmethod(ignore_vector)
    llm: Any  # the `vllm.LLM`, for tests and benchmarks; call it with `on_engine_thread`
    pooling_params: Any  # the `vllm.PoolingParams` of every document

    def __init__(self, path: str, model: Model, max_tokens: int, engine: EngineConfig) -> None:
        # The processes of a local Ray run as batch tasks (SCHED_BATCH), so they do not preempt this thread and its OpenMP team.
        self._thread = ThreadPoolExecutor(1, "engine", initializer=os.sched_setscheduler, initargs=(0, os.SCHED_OTHER, os.sched_param(0)))
        self._width = model.width
        self.llm, self.pooling_params, self.version = self.on_engine_thread(lambda: build_engine(path, model, max_tokens, engine))

    def on_engine_thread(self, work: Callable[[], T]) -> T:
        """Runs `work` on the thread that may call `llm`, after the calls that wait there already."""
        return self._thread.submit(work).result()

    def embed(self, documents: TokenIds) -> Vectors:
        return self.on_engine_thread(lambda: self._embed(documents))

    def _embed(self, documents: TokenIds) -> Vectors:
        vectors = np.empty((len(documents), self._width), np.float32)
        try:
            for row, vector in pooled_outputs(self.llm, [ids.tolist() for ids in documents], self.pooling_params):
                vectors[row] = vector.numpy()
                self.on_vector()
        except Exception as error:
            # No further call may reach this engine: requests of this call may remain in its queues, and would answer the next one.
            raise EngineError(f"{type(error).__name__}: {error}", "memory" if is_out_of_memory(error) else "engine") from error
        return vectors

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        return self.on_engine_thread(lambda: self._token_states(document))

    def _token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        from vllm import PoolingParams

        ((_, states),) = pooled_outputs(self.llm, [document.tolist()], PoolingParams(task="token_embed", use_activation=False))
        return np.asarray(states.float().numpy(), np.float32)


def pooled_outputs(llm: Any, documents: Sequence[list[int]], params: Any) -> Iterator[tuple[int, Any]]:
    """Pairs of a row of `documents` (token ids) and the tensor that a `vllm.LLM` pools for it, as each is finished.

    It sends requests to the engine core directly. `LLM.encode` adds work to every request, such as copies of the
    parameters, that requests of one batch do not need; it took a tenth of a small model's time."""
    if not all(documents):
        raise ValueError("a document without tokens")  # the engine core would fail on it without a message
    from vllm.v1.engine import EngineCoreRequest

    core = llm.llm_engine.engine_core
    for row, ids in enumerate(documents):
        core.add_request(
            EngineCoreRequest(
                request_id=str(row),
                prompt_token_ids=ids,
                pooling_params=params,
                arrival_time=0.0,  # the same for all
                mm_features=None,
                sampling_params=None,
                lora_request=None,
                cache_salt=None,
                data_parallel_rank=None,
            )
        )
    unfinished = len(documents)
    while unfinished:
        for output in core.get_output().outputs:
            yield int(output.request_id), output.pooling_output
            unfinished -= 1


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the host or a GPU has no memory left. torch has no error class for the host's memory, so the message tells."""
    return isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ or "allocate memory" in str(error)


def build_engine(path: str, model: Model, max_tokens: int, engine: EngineConfig) -> tuple[Any, Any, str]:
    """A `vllm.LLM`, its `PoolingParams` for documents, and the version for the provenance."""
    if not hardware.has_gpu() and "quantization" not in engine.args:
        require_memory(path, model, max_tokens, engine)
    vllm = import_vllm()
    device = vllm.platforms.current_platform
    on_cpu = device.is_cpu()
    settings = engine_settings(path, model, max_tokens, engine)
    settings["pooler_config"] = vllm.config.PoolerConfig(seq_pooling_type=VLLM_POOLING[model.pooling], use_activation=True)
    if on_cpu:
        settings |= cpu_settings(model, max_tokens, engine)
        vllm_patches.limit_kept_gemms()
    llm = vllm.LLM(**settings | engine.args)
    if on_cpu:
        if "ir_op_priority" not in engine.args:
            vllm_patches.use_fused_norms()
        vllm_patches.patch_layers(llm)
    host = hardware.cpu_kind() if on_cpu else device.get_device_name()
    return llm, vllm.PoolingParams(task="embed", use_activation=True), f"vllm {vllm.__version__} on {host}"


def engine_settings(path: str, model: Model, max_tokens: int, engine: EngineConfig) -> dict[str, Any]:
    """Arguments of `vllm.LLM` on every host."""
    settings: dict[str, Any] = {
        "model": path,
        "runner": "pooling",
        "dtype": engine.dtype,
        "max_model_len": max_tokens,
        # One step must hold a whole document: mean and CLS pooling need all of its tokens at once.
        "max_num_batched_tokens": max(engine.step_tokens, max_tokens),
        "tensor_parallel_size": engine.tensor_parallel_size,
        "load_format": "safetensors",
        # Documents share no prefix that is worth a look-up.
        "enable_prefix_caching": False,
        "disable_log_stats": True,
        "seed": 0,
    }
    if engine.tensor_parallel_size > 1:
        settings["distributed_executor_backend"] = "mp"  # within a placement group, vLLM would take Ray, and listen on the network
    if engine.num_gpus is not None and 0 < engine.num_gpus < 1:
        settings["gpu_memory_utilization"] = 0.9 * engine.num_gpus  # other actors on this GPU take the rest
    return settings


def cpu_settings(model: Model, max_tokens: int, engine: EngineConfig) -> dict[str, Any]:
    """Further arguments on CPU hosts.

    Compiled mode was slower than eager there, and took 20 s longer to load. With a stated KV cache size vLLM does not
    run a step of the model to find the size."""
    return {
        "enforce_eager": True,
        "block_size": KV_BLOCK_TOKENS,
        "max_num_seqs": MAX_CPU_SEQUENCES,
        "kv_cache_memory_bytes": kv_cache_bytes(model, max_tokens, engine),
    }


def require_memory(folder: str, model: Model, max_tokens: int, engine: EngineConfig) -> None:
    """Raises ModelError where a CPU host cannot hold the model: the kernel would end the process without a word."""
    needed = ENGINE_BYTES + values_in(Path(folder)) * (4 if engine.dtype == "float32" else 2) + kv_cache_bytes(model, max_tokens, engine)
    usable = hardware.usable_memory()
    if needed > usable:
        raise ModelError(
            f"model: {model.name} needs at least {needed / (1 << 30):.1f} GiB of memory, but this host or container has "
            f"{usable / (1 << 30):.1f}; give it more, or take a smaller model, or fewer engine.step_tokens"
        )


def import_vllm() -> Any:
    """The vLLM module, with garbage collection off during the import and its objects exempt from it afterwards.

    The import creates a million objects that stay. Collections over them took a quarter of the time of the import,
    and a quarter of the time of loading a model."""
    gc.disable()
    try:
        import vllm
        import vllm.config

        _ = vllm.LLM  # a lazy attribute: it imports most of vLLM
    finally:
        gc.enable()
    gc.freeze()
    return vllm


def kv_cache_bytes(model: Model, max_tokens: int, engine: EngineConfig) -> int:
    """Size of the KV cache on a CPU host: `engine.kv_cache_gib`, or else what the longest step needs.

    A step needs its tokens, one partly filled block for each sequence, and the one block that vLLM reserves."""
    if engine.kv_cache_gib is not None:
        return engine.kv_cache_gib << 30
    tokens = max(engine.step_tokens, max_tokens) + (engine.args.get("max_num_seqs", MAX_CPU_SEQUENCES) + 1) * KV_BLOCK_TOKENS
    return int(tokens * model.cache_values * (4 if engine.dtype == "float32" else 2))
