"""The best plain script for the job's work, which the row `ratio` compares the job with: one process, no Ray.

    python scripts/benchmarks/plain.py MODEL CORPUS OUT SHARD_ROWS DIM,DIM,... SETTINGS

It reads Parquet, tokenizes, embeds with vLLM, truncates and writes Parquet, one slice of rows after the other. SETTINGS
are arguments of `vllm.LLM` as JSON. The ratio must compare the same engine, so this package patches vLLM on CPU hosts here
too, and asks the engine. `scripts/bench ratio` sets the environment.

It prints {"tokens", "seconds", "engine_seconds", "documents"}. `seconds` go from the start of the first slice on the engine
to the end of the last, as in the job's own report. `engine_seconds` are those inside the engine's calls.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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
    engine, params = load(model, settings)
    Path(out).mkdir(parents=True, exist_ok=True)
    tokens = documents = 0
    started = finished = inside = 0.0
    for name, part in slices(corpus, shard_rows):
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(part["text"].to_pylist())]
        called = time.perf_counter()
        started = started or called
        pooled = embed_longest_first(engine, params, ids)
        finished = time.perf_counter()
        inside += finished - called
        write(part, np.stack([vector.numpy() for vector in pooled]), dims, Path(out) / name)
        tokens += sum(map(len, ids))
        documents += len(ids)
    print(json.dumps({"tokens": tokens, "seconds": finished - started, "engine_seconds": inside, "documents": documents}))


def load(model: str, settings: dict[str, Any]) -> tuple[Any, Any]:
    """An engine like the job's, and the parameters of its requests."""
    on_cpu = vllm.platforms.current_platform.is_cpu()
    if on_cpu:
        vllm_patches.limit_kept_gemms()
    engine = vllm.LLM(model=model, **settings)
    if on_cpu:
        vllm_patches.use_fused_norms()
        vllm_patches.patch_layers(engine)
    return engine, vllm.PoolingParams(task="embed", use_activation=True)


def slices(corpus: str, shard_rows: int) -> Iterator[tuple[str, pa.Table]]:
    """The name of an output file, and its rows."""
    for path in sorted(Path(corpus).glob("*.parquet")):
        table = pq.read_table(path, columns=["id", "text"])
        for start in range(0, table.num_rows, shard_rows):
            yield f"{path.stem}-{start:08d}.parquet", table.slice(start, shard_rows)


def embed_longest_first(engine: Any, params: Any, ids: list[list[int]]) -> list[Any]:
    """A tensor for each document, in the order of the documents."""
    order = sorted(range(len(ids)), key=lambda row: -len(ids[row]))
    tensors = {order[place]: tensor for place, tensor in pooled_outputs(engine, [ids[row] for row in order], params)}
    return [tensors[row] for row in range(len(ids))]


def write(part: pa.Table, vectors: npt.NDArray[np.float32], dims: list[int], path: Path) -> None:
    columns = {"id": part["id"], "text": part["text"]}
    for dim in dims:
        cut = vectors[:, :dim] / np.linalg.norm(vectors[:, :dim], axis=1, keepdims=True)
        columns[f"embedding_{dim}"] = pa.FixedSizeListArray.from_arrays(pa.array(cut.reshape(-1)), dim)
    pq.write_table(pa.table(columns), path, compression="zstd", use_dictionary=False)


if __name__ == "__main__":
    model, corpus, out, shard_rows, dims, settings = sys.argv[1:]
    main(model, corpus, out, int(shard_rows), [int(dim) for dim in dims.split(",")], json.loads(settings))
