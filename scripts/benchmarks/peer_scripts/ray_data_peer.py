"""A Ray Data graph with vLLM, as Ray's documentation of batch inference shows: read_parquet, map_batches, write_parquet.

    python ray_data_peer.py MODEL CORPUS OUT MAX_TOKENS DTYPE BATCH

The last line of output is {"documents", "seconds"}. The seconds go from the start of the first batch on the engine to the end
of the last one. The actor's clock gives both, and the actor writes them beside its rows.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.dataset as ds
import ray


class Embedder:
    def __init__(self, model: str, max_tokens: int, dtype: str) -> None:
        import vllm

        self.truncation = {"truncate_prompt_tokens": max_tokens}
        # Compiling takes longer and runs slower on CPU hosts. With a prefix cache repeated documents would be free.
        self.engine = vllm.LLM(
            model=model,
            runner="pooling",
            dtype=dtype,
            max_model_len=max_tokens,
            enforce_eager=True,
            enable_prefix_caching=False,
            gpu_memory_utilization=0.5,
        )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        started = time.time()
        outputs = self.engine.embed(batch["text"].tolist(), use_tqdm=False, tokenization_kwargs=self.truncation)
        batch["embedding"] = np.array([output.outputs.embedding for output in outputs], np.float32)
        batch["started"], batch["finished"] = np.full(len(outputs), started), np.full(len(outputs), time.time())
        return batch


def main(model: str, corpus: str, out: str, max_tokens: str, dtype: str, batch: str) -> None:
    ray.init()
    # One core stays free. An actor with all cores would leave none for reading and writing, and the graph would hang.
    cpus = max(1, int(ray.cluster_resources()["CPU"]) - 1)
    embedded = ray.data.read_parquet(corpus, columns=["id", "text"]).map_batches(
        Embedder,
        fn_constructor_kwargs={"model": model, "max_tokens": int(max_tokens), "dtype": dtype},
        compute=ray.data.ActorPoolStrategy(size=1),
        batch_size=int(batch),
        num_cpus=cpus,
    )
    Path(out).mkdir(parents=True, exist_ok=True)
    embedded.write_parquet(out)
    times = ds.dataset(out).to_table(columns=["started", "finished"])
    seconds = pc.max(times["finished"]).as_py() - pc.min(times["started"]).as_py()
    print(json.dumps({"documents": times.num_rows, "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
