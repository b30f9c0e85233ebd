"""What a model's matrix products alone allow on this host: those it cannot do without, at the best rate seen of its processor.

As a command of its own (python -m scripts.benchmarks.limit MODEL DTYPE): that rate, in FLOP/s."""

from __future__ import annotations

import math
import statistics
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
import typer
from safetensors import safe_open

from bulkembed.embedding.model_files import describe
from bulkembed.runs.job import load_tokenizer
from scripts.benchmarks.engine import actor_environment
from scripts.benchmarks.material import Row, child, corpus, engine_dtype, model_folder, shape_of

ROWS = 1024  # of a product, which then stays in the processor's caches
SECONDS = 0.3  # of one measurement
FOR_KEYS = ("k_proj", "v_proj")  # what the last layer needs of every token, where only the last token's state is pooled


def limit(
    model: Annotated[list[str] | None, typer.Option(help="minilm, 42M, 0.6B or 4B; repeatable. [default: minilm, 42M]")] = None,
    documents: Annotated[int, typer.Option(help="Of the demo corpus.")] = 10_000,
) -> Iterator[Row]:
    """Documents/s that a model's matrix products alone allow, attention's own left out: a peer at half of it can be doubled at most."""
    for name in model or ["minilm", "42M"]:
        printed, _, _ = child("limit", model_folder(name), engine_dtype(), env=actor_environment())
        fastest = float(printed.splitlines()[-1])
        needed = 2 * sum(rows * columns for rows, columns in matrices(model_folder(name)))
        tokens = tokens_of(name, documents)
        yield {
            "model": name,
            "engine_dtype": engine_dtype(),
            "gflop_per_s": round(fastest / 1e9),
            "mflop_per_token": round(needed / 1e6, 2),
            "limit_tokens_per_s": round(fastest / needed),
            "documents": documents,
            "tokens": tokens,
            "limit_documents_per_s": round(fastest / needed / tokens * documents, 1),
        }


def matrices(folder: Path) -> list[tuple[int, int]]:
    """Shapes of the weights that every token is multiplied with."""
    last = describe(str(folder), None).pooling == "last"
    with safe_open(folder / "model.safetensors", "numpy") as file:
        keys = file.keys()
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    layers = max(map(layer_of, shapes))

    def for_all_tokens(key: str) -> bool:
        return 0 <= layer_of(key) < layers or (layer_of(key) == layers and (not last or any(part in key for part in FOR_KEYS)))

    return [shape for key, shape in shapes.items() if len(shape) == 2 and for_all_tokens(key)]


def layer_of(key: str) -> int:
    """-1: of none."""
    return next((int(part) for part in key.split(".") if part.isdigit()), -1)


def tokens_of(name: str, documents: int) -> int:
    tokenizer = load_tokenizer(describe(str(model_folder(name)), None), shape_of(name).max_tokens)
    texts = [text for path in corpus(documents).glob("*.parquet") for text in pq.read_table(path, columns=["text"])["text"].to_pylist()]
    return int(tokenizer.encode(texts, "").lengths.sum())


def fastest_product(shapes: set[tuple[int, int]], dtype: str) -> float:
    """FLOP/s of the best of products with these matrices and of square ones, each the median of five measurements."""
    sizes = [(size, size, size) for size in (2048, 4096)] + [(ROWS, inner, columns) for columns, inner in sorted(shapes)]
    return max(statistics.median(2 * math.prod(size) / seconds_of(*size, dtype) for _ in range(5)) for size in sizes)


def seconds_of(rows: int, inner: int, columns: int, dtype: str) -> float:
    """Of one product, with weights laid out beforehand as vLLM does on CPU hosts: up to a tenth faster than PyTorch's way."""
    import torch
    import vllm._custom_ops as vllm_ops
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    device = "cpu" if on_cpu else "cuda"
    left, weights = (torch.randn(size, inner, device=device).to(getattr(torch, dtype)) for size in (rows, columns))
    product = partial(torch.nn.functional.linear, left, weights)
    if on_cpu:
        current_platform.import_kernels()
        product = partial(vllm_ops.onednn_mm, vllm_ops.create_onednn_mm(weights.t()), left, None)

    def products(count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            product()
        if not on_cpu:
            torch.cuda.synchronize()
        return time.perf_counter() - started

    count = max(1, int(SECONDS / max(products(2) / 2, 1e-6)))
    return products(count) / count


if __name__ == "__main__":
    print(fastest_product(set(matrices(Path(sys.argv[1]))), sys.argv[2]))
