"""What a user would write instead, on the same documents: sentence-transformers, tokenizing, embedding, writing Parquet.

    python scripts/peers.py MODEL CORPUS OUT MAX_TOKENS bfloat16|float32 BATCH

Prints {"documents", "seconds"} of the embedding alone.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from sentence_transformers import SentenceTransformer


def main(model: str, corpus: str, out: str, max_tokens: str, dtype: str, batch: str) -> None:
    loaded = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": getattr(torch, dtype)})
    loaded.max_seq_length = int(max_tokens)
    rows = pa.concat_tables([pq.read_table(path) for path in sorted(Path(corpus).glob("*.parquet"))])
    started = time.perf_counter()
    tensors = loaded.encode(rows["text"].to_pylist(), batch_size=int(batch), normalize_embeddings=True, convert_to_tensor=True)
    vectors = tensors.float().numpy()
    seconds = time.perf_counter() - started
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), vectors.shape[1])
    Path(out).mkdir(parents=True, exist_ok=True)
    pq.write_table(rows.append_column("embedding", column), Path(out) / "vectors.parquet", compression="zstd")
    print(json.dumps({"documents": len(vectors), "seconds": seconds}))


if __name__ == "__main__":
    main(*sys.argv[1:])
