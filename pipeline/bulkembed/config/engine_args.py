"""Arguments of vllm.LLM: which of them a run may give, and which of them can change a vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

# Arguments that bulkembed sets itself, and the key that decides each. None: the model's own files decide, or safety does.
OWN_ARGS: dict[str, str | None] = {
    "model": "model",
    "revision": "revision",
    "dtype": "engine.dtype",
    "max_model_len": "max_tokens",
    "max_num_batched_tokens": "engine.step_tokens",
    "tensor_parallel_size": "engine.tensor_parallel_size",
    **dict.fromkeys(("model_weights", "tokenizer", "tokenizer_revision", "code_revision", "hf_config_path", "served_model_name")),
    **dict.fromkeys(("runner", "convert", "task", "pooler_config", "override_pooler_config", "load_format", "download_dir")),
    "hf_token": "HF_TOKEN in the environment",
}
# Arguments that change speed and memory, and no vector beyond rounding. Every other argument is part of a run's identity, since
# vLLM may get arguments that nobody here has looked at.
HARMLESS_ARGS = {
    *("async_scheduling", "block_size", "cpu_offload_gb", "cudagraph_capture_sizes", "disable_custom_all_reduce", "disable_log_stats"),
    *("distributed_executor_backend", "distributed_timeout_seconds", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager"),
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "max_cudagraph_capture_size", "max_num_seqs", "max_parallel_loading_workers"),
    *("num_gpu_blocks_override", "safetensors_load_strategy", "safetensors_prefetch_block_size", "safetensors_prefetch_num_threads"),
    *("skip_mm_profiling", "use_tqdm_on_load"),
}


def numeric_args(args: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that can change a vector."""
    return {name: value for name, value in args.items() if name not in HARMLESS_ARGS}


def survives_json(value: Any) -> bool:
    """Whether a value comes back the same from JSON, in which a run is recorded."""
    try:
        return bool(orjson.loads(orjson.dumps(value)) == value)
    except TypeError:
        return False


def problem_with(args: Mapping[str, Any]) -> str | None:
    """Why a run may not give these arguments, or None."""
    own = next((name for name in args if name in OWN_ARGS), None)
    if own is not None:
        key = OWN_ARGS[own]
        return f"{own} is not taken here: " + (f"give {key}" if key else "bulkembed sets it from the model's own files")
    unrecordable = next((name for name, value in args.items() if not survives_json(value)), None)
    if unrecordable is None:
        return None
    return f"{unrecordable} holds what JSON does not (a date, inf, nan, more than 64 bits), so it cannot be recorded"
