"""sentence-transformers in one process: it reads Parquet, embeds (sorted by length) and writes Parquet.

    python sentence_transformers_peer.py MODEL CORPUS OUT MAX_TOKENS DTYPE torch|openvino BATCH

The last line of output is {"documents", "seconds"}, for the embedding alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer

PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}  # OpenVINO's names


def load(model: str, dtype: str, backend: str) -> Any:
    if backend == "torch":
        return SentenceTransformer(model, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    settings = {"ov_config": {"INFERENCE_PRECISION_HINT": PRECISIONS[dtype]}}
    return SentenceTransformer(model, device="cpu", backend=backend, model_kwargs=settings)


def main(model: str, corpus: str, out: str, max_tokens: str, dtype: str, backend: str, batch: str) -> None:
    loaded = load(model, dtype, backend)
    loaded.max_seq_length = int(max_tokens)
    rows = pa.concat_tables([pq.read_table(path, columns=["id", "text"]) for path in sorted(Path(corpus).glob("*.parquet"))])
    started = time.perf_counter()
    tensors = loaded.encode(rows["text"].to_pylist(), batch_size=int(batch), normalize_embeddings=True, convert_to_tensor=True)
    vectors = tensors.float().numpy()
    seconds = time.perf_counter() - started
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    Path(out).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.append_column("embedding", column), Path(out) / "vectors.parquet")
    print(json.dumps({"documents": len(vectors), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
