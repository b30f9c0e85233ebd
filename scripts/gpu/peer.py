"""The row `sentence-transformers`: the same documents on the same GPU."""

from __future__ import annotations

import importlib.util
import time
from collections.abc import Callable

import numpy as np
import pyarrow.parquet as pq

from scripts.gpu.child import RowInput, Task
from scripts.gpu.corpus import load_ids
from scripts.gpu.flops import flops
from scripts.gpu.plan import Group, Result

PACKAGE = "sentence_transformers"
BATCHES = (32, 128)
DOCUMENTS = 1024  # in a call; it sorts them by length, so that they hardly pad


def prepare(group: Group, task: Task) -> RowInput:
    return RowInput(task, group)


def peer(row_input: RowInput) -> Result:
    """The better rate of two batch sizes, with FlashAttention where it is installed and PyTorch's attention elsewhere."""
    if importlib.util.find_spec(PACKAGE) is None:
        return {"skipped": f"{PACKAGE} is not installed"}
    import torch
    from sentence_transformers import SentenceTransformer

    task, shape = row_input.task, row_input.group.shape
    attention = "flash_attention_2" if not task.dry and importlib.util.find_spec("flash_attn") else "sdpa"
    settings = {"dtype": torch.float32 if task.dtype == "float32" else torch.bfloat16, "attn_implementation": attention}
    encoder = SentenceTransformer(str(task.folder(shape)), device=task.device, model_kwargs=settings)
    encoder.max_seq_length = 512
    texts = pq.read_table(task.work / "corpus", columns=["text"])["text"].to_pylist()[:DOCUMENTS]
    lengths = np.array(list(map(len, load_ids(task.work / "corpus.npz"))), np.int64)[:DOCUMENTS]
    rates = {}
    for size in BATCHES:
        encoder.encode(texts[:size], batch_size=size, prompt="")
        started = time.perf_counter()
        encoder.encode(texts, batch_size=size, prompt="")
        rates[size] = lengths.sum() / (time.perf_counter() - started)
    best = max(rates, key=lambda size: rates[size])
    engine = task.known.get("engine-32k", {}).get("tokens_per_s")
    return {
        "tokens_per_s": round(rates[best]),
        "batch": best,
        "rates": {str(size): round(rate) for size, rate in rates.items()},
        "attention": attention,
        "tflops": flops(task.sizes(shape), lengths) * rates[best] / lengths.sum() / 1e12,
        **({"engine_over_it": round(engine / rates[best], 2)} if engine else {}),
    }


ROWS: dict[str, Callable[[RowInput], Result]] = {"sentence-transformers": peer}
