"""Reference vectors in float32: python tests/reference.py sentence-transformers|transformers MODEL IN.parquet OUT.npy MAX_TOKENS

Run in a process of its own, since vLLM and these libraries do not share settings well.
"""

from __future__ import annotations

import sys

import numpy as np
import pyarrow.parquet as pq
import torch


def by_sentence_transformers(model: str, texts: list[str], max_tokens: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    from sentence_transformers import SentenceTransformer

    loaded = SentenceTransformer(model, device="cpu", model_kwargs={"torch_dtype": torch.float32})
    loaded.max_seq_length = max_tokens
    return np.asarray(loaded.encode(texts, batch_size=16, normalize_embeddings=True), np.float32)


def by_transformers(model: str, texts: list[str], max_tokens: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    """Qwen3's own forward pass, read at the last token: one document at a time, so that nothing is padded."""
    from tokenizers import Tokenizer
    from transformers import Qwen3Model

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    loaded = Qwen3Model.from_pretrained(model, torch_dtype=torch.float32).eval()
    vectors = []
    with torch.inference_mode():
        for text in texts:
            ids = tokenizer.encode(text).ids
            ids = ids if len(ids) <= max_tokens else [*ids[: max_tokens - 1], ids[-1]]
            last = loaded(torch.tensor([ids])).last_hidden_state[0, -1]
            vectors.append(torch.nn.functional.normalize(last, dim=0).numpy())
    return np.stack(vectors)


if __name__ == "__main__":
    library, model, source, out, max_tokens = sys.argv[1:]
    embed = {"sentence-transformers": by_sentence_transformers, "transformers": by_transformers}[library]
    np.save(out, embed(model, pq.read_table(source)["text"].to_pylist(), int(max_tokens)))
