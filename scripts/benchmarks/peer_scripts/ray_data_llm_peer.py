"""Ray Data LLM's embed task, as its documentation shows: a vLLM processor between read_parquet and write_parquet.

    python ray_data_llm_peer.py MODEL CORPUS OUT MAX_TOKENS DTYPE BATCH

The last line printed is {"documents", "seconds"} of the engine stage, taken from what the stage itself says of each row:
`time_taken_llm`, seconds from the row's submission (the wait for a free place in the engine included) to its vector. The
clock in `postprocess`, which runs when the row's whole batch left the engine, less that time, is when the row went in, or
later; so seconds are from the earliest of those to the last `postprocess`. That is an upper bound of the rate, and on two cores a
useless one: `postprocess` finds no core until the engine has ended (half of 5,000 documents in 20 blocks within 0.2 s). The wall is
right in any case, and so is a rate from the walls of two corpora of different sizes.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray
from ray.data.llm import build_processor, vLLMEngineProcessorConfig


def finished(row: dict[str, Any]) -> dict[str, Any]:
    now = time.time()
    return {"id": row["id"], "text": row["text"], "embedding": row["embeddings"], "started": now - row["time_taken_llm"], "finished": now}


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
    times = ds.dataset(out).to_table(columns=["started", "finished"])
    seconds = pc.max(times["finished"]).as_py() - pc.min(times["started"]).as_py()
    print(json.dumps({"documents": times.num_rows, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
