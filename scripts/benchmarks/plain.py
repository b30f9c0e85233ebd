"""The ceiling: the best plain script for the same work, one process, no Ray, nothing of this package but what it
gives vLLM on CPU hosts and how it asks it, so that the ratio is of the same engine.

    python scripts/benchmarks/plain.py MODEL CORPUS OUT SHARD_ROWS DIM,DIM,... SETTINGS

Reads Parquet, tokenizes, embeds with vLLM (SETTINGS: of `vllm.LLM`, as JSON), truncates, writes Parquet, one slice of
rows after the other; prints {"tokens", "seconds", "engine_seconds", "documents"}: `seconds` from the first slice on the
engine to the last off it, as the job reports its own, `engine_seconds` of them inside the engine's calls. `scripts/bench
ratio` sets the environment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import vllm
import vllm.platforms
from tokenizers import Tokenizer

from bulkembed.embedding import vllm_patches
from bulkembed.embedding.vllm_engine import pooled_outputs


def main(model: str, corpus: str, out: str, shard_rows: int, dims: list[int], settings: dict[str, Any]) -> None:
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(settings["max_model_len"])
    on_cpu = vllm.platforms.current_platform.is_cpu()
    if on_cpu:
        vllm_patches.limit_kept_gemms()
    engine = vllm.LLM(model=model, **settings)
    if on_cpu:
        vllm_patches.use_fused_norms()
        vllm_patches.patch_layers(engine)
    params = vllm.PoolingParams(task="embed", use_activation=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    tokens = documents = 0
    started = finished = inside = 0.0
    for path in sorted(Path(corpus).glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        for start in range(0, table.num_rows, shard_rows):
            part = table.slice(start, shard_rows)
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(part["text"].to_pylist())]
            order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
            called = time.perf_counter()
            started = started or called
            found = dict(pooled_outputs(engine, [ids[row] for row in order], params))
            finished = time.perf_counter()
            inside += finished - called
            vectors = np.empty((len(ids), len(found[0])), np.float32)
            for place, row in enumerate(order):
                vectors[row] = found[place].numpy()
            columns = {"id": part["id"], "text": part["text"]}
            for dim in dims:
                cut = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
                columns[f"embedding_{dim}"] = pa.FixedSizeListArray.from_arrays(pa.array(cut.reshape(-1)), dim)
            pq.write_table(pa.table(columns), Path(out) / f"{path.stem}-{start:08d}.parquet", compression="zstd", use_dictionary=False)
            tokens += sum(map(len, ids))
            documents += len(ids)
    print(json.dumps({"tokens": tokens, "seconds": finished - started, "engine_seconds": inside, "documents": documents}))


if __name__ == "__main__":
    model, corpus, out, shard_rows, dims, settings = sys.argv[1:]
    main(model, corpus, out, int(shard_rows), [int(dim) for dim in dims.split(",")], json.loads(settings))
