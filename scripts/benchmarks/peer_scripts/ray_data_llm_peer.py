"""Ray Data LLM's embed task, as its documentation shows: a vLLM processor between read_parquet and write_parquet.

    python ray_data_llm_peer.py MODEL CORPUS OUT MAX_TOKENS DTYPE BATCH

No clock inside says when the engine has worked: on two cores what stands behind it finds none until it has ended (half of 5,000
documents in 20 blocks came within 0.2 s). Its rate comes from the walls of two corpora of different sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig


def finished(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "text": row["text"], "embedding": row["embeddings"]}


def main(model: str, corpus: str, out: str, max_tokens: str, dtype: str, batch: str) -> None:
    ray.init()
    cpus = max(1, int(ray.cluster_resources()["CPU"]) - 1)  # a core stays free, else reading and writing wait for ever
    config = vLLMEngineProcessorConfig(
        model_source=model,
        task_type="embed",
        # Eager: compiling takes longer and runs slower on CPU hosts. Without the prefix cache: repeated documents would be free.
        engine_kwargs={
            "dtype": dtype,
            "max_model_len": int(max_tokens),
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "gpu_memory_utilization": 0.5,
        },
        batch_size=int(batch),
        concurrency=1,
        log_engine_metrics=False,  # vLLM exports them to Ray only where Ray Serve is installed too
        placement_group_config={"bundles": [{"CPU": cpus, "GPU": 0}]},  # without it the stage asks for a GPU
        # Its tokenizer stage does not truncate, and takes a CPU; the engine's own tokenizing does, by `tokenization_kwargs`.
        tokenize_stage=False,
        chat_template_stage=False,
        detokenize_stage=False,
    )
    truncation = {"truncation": True, "max_length": int(max_tokens)}
    processor = build_processor(
        config, preprocess=lambda row: {"prompt": row["text"], "tokenization_kwargs": truncation}, postprocess=finished
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    processor(ray.data.read_parquet(corpus, columns=["id", "text"])).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
