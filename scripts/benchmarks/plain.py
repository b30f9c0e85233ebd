"""The ceiling: the best plain script for the same work, one process, no Ray, nothing of this package but what it
gives vLLM on CPU hosts, so that the ratio is of the same engine.

    python scripts/benchmarks/plain.py MODEL CORPUS OUT MAX_TOKENS STEP_TOKENS SHARD_ROWS DIM,DIM,... DTYPE CACHE_BYTES

Reads Parquet, tokenizes, embeds with vLLM, truncates, writes Parquet, one slice of rows after the
other; prints {"tokens", "seconds", "documents"} of the time from the first slice on the engine to
the last off it, as the job reports its own. `scripts/bench ratio` sets the environment.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import vllm
from tokenizers import Tokenizer

from pipeline import kernels


def main(
    model: str, corpus: str, out: str, max_tokens: int, step_tokens: int, shard_rows: int, dims: list[int], dtype: str, cache_bytes: int
) -> None:
    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    engine = vllm.LLM(
        model=model,
        runner="pooling",
        dtype=dtype,
        enforce_eager=True,
        enable_prefix_caching=False,
        max_model_len=max_tokens,
        max_num_batched_tokens=max(step_tokens, max_tokens),
        kv_cache_memory_bytes=cache_bytes,
        block_size=32,
        disable_log_stats=True,
        seed=0,
    )
    kernels.fuse_norms()
    kernels.fit_layers(engine)
    params = vllm.PoolingParams(task="embed", use_activation=True)
    Path(out).mkdir(parents=True, exist_ok=True)
    tokens = documents = 0
    started = finished = 0.0
    for path in sorted(Path(corpus).glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        for start in range(0, table.num_rows, shard_rows):
            part = table.slice(start, shard_rows)
            ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(part["text"].to_pylist())]
            order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
            started = started or time.perf_counter()
            outputs = engine.encode(
                [{"prompt_token_ids": ids[row]} for row in order], pooling_params=params, pooling_task="embed", use_tqdm=False
            )
            finished = time.perf_counter()
            vectors = np.empty((len(ids), outputs[0].outputs.data.shape[0]), np.float32)
            for row, output in zip(order, outputs, strict=True):
                vectors[row] = output.outputs.data.numpy()
            columns = {"id": part["id"], "text": part["text"]}
            for dim in dims:
                cut = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
                columns[f"embedding_{dim}"] = pa.FixedSizeListArray.from_arrays(pa.array(cut.reshape(-1)), dim)
            pq.write_table(pa.table(columns), Path(out) / f"{path.stem}-{start:08d}.parquet", compression="zstd", use_dictionary=False)
            tokens += sum(map(len, ids))
            documents += len(ids)
    print(json.dumps({"tokens": tokens, "seconds": finished - started, "documents": documents}))


if __name__ == "__main__":
    model, corpus, out, max_tokens, step_tokens, shard_rows, dims, dtype, cache_bytes = sys.argv[1:]
    main(
        model,
        corpus,
        out,
        int(max_tokens),
        int(step_tokens),
        int(shard_rows),
        [int(dim) for dim in dims.split(",")],
        dtype,
        int(cache_bytes),
    )
