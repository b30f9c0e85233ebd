"""Ray Data LLM's embed task, as its documentation shows: a vLLM processor between read_parquet and write_parquet.

    python ray_data_llm_peer.py MODEL CORPUS OUT MAX_TOKENS DTYPE BATCH

It has no clock of its own. On two cores a stage behind the engine gets no core until the engine has ended: half of 5,000
documents in 20 blocks came within 0.2 s. So the rate comes from the walls of two corpora of different sizes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig


def output_row(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["id"], "text": row["text"], "embedding": row["embeddings"]}


def main(model: str, corpus: str, out: str, max_tokens: str, dtype: str, batch: str) -> None:
    ray.init()
    cpus = max(1, int(ray.cluster_resources()["CPU"]) - 1)  # one core stays free, or reading and writing wait for ever
    config = vLLMEngineProcessorConfig(
        model_source=model,
        task_type="embed",
        # Compiling takes longer and runs slower on CPU hosts. With a prefix cache repeated documents would be free.
        engine_kwargs={
            "dtype": dtype,
            "max_model_len": int(max_tokens),
            "enforce_eager": True,
            "enable_prefix_caching": False,
            "gpu_memory_utilization": 0.5,
        },
        batch_size=int(batch),
        concurrency=1,
        log_engine_metrics=False,  # vLLM exports them to Ray only where Ray Serve is installed
        placement_group_config={"bundles": [{"CPU": cpus, "GPU": 0}]},  # without it the stage asks for a GPU
        # The tokenizer stage does not truncate, and takes a CPU. The engine's own tokenizer truncates, by `tokenization_kwargs`.
        tokenize_stage=False,
        chat_template_stage=False,
        detokenize_stage=False,
    )
    truncation = {"truncation": True, "max_length": int(max_tokens)}
    processor = build_processor(
        config, preprocess=lambda row: {"prompt": row["text"], "tokenization_kwargs": truncation}, postprocess=output_row
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    processor(ray.data.read_parquet(corpus, columns=["id", "text"])).write_parquet(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
