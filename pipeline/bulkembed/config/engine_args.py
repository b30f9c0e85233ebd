"""Arguments of vllm.LLM: which a run may give, and which of them can change a vector."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

# Arguments of vllm.LLM that bulkembed sets itself, and the key that says them. None: the model's own files do, or safety does.
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
# Those that change how fast vectors are made and how much memory that takes, and no number of them beyond rounding. Any other
# argument is part of a run's identity: what is not known to be harmless is not.
HARMLESS_ARGS = {
    *("async_scheduling", "block_size", "cpu_offload_gb", "cudagraph_capture_sizes", "disable_custom_all_reduce", "disable_log_stats"),
    *("distributed_executor_backend", "distributed_timeout_seconds", "enable_chunked_prefill", "enable_prefix_caching", "enforce_eager"),
    *("gpu_memory_utilization", "kv_cache_memory_bytes", "max_cudagraph_capture_size", "max_num_seqs", "max_parallel_loading_workers"),
    *("num_gpu_blocks_override", "safetensors_load_strategy", "safetensors_prefetch_block_size", "safetensors_prefetch_num_threads"),
    *("skip_mm_profiling", "use_tqdm_on_load"),
}


def numeric(args: Mapping[str, Any]) -> dict[str, Any]:
    """Those that can change a vector."""
    return {name: value for name, value in args.items() if name not in HARMLESS_ARGS}


def recordable(value: Any) -> bool:
    """Whether it comes back the same from the record of a run."""
    try:
        return bool(orjson.loads(orjson.dumps(value)) == value)
    except TypeError:
        return False


def refusal(args: Mapping[str, Any]) -> str | None:
    """Why these are not taken, or None."""
    own = next((name for name in args if name in OWN_ARGS), None)
    if own is None:
        lost = next((name for name, value in args.items() if not recordable(value)), None)
        return None if lost is None else f"{lost} holds what JSON does not (a date, inf, nan, more than 64 bits), so it cannot be recorded"
    key = OWN_ARGS[own]
    return f"{own} is not taken here: " + (f"give {key}" if key else "bulkembed sets it from the model's own files")
