"""The row `limit`: how many documents/s a model's matrix multiplications (GEMMs) alone allow on this host.

The command `python -m scripts.benchmarks.limit MODEL DTYPE` prints the best GEMM rate of this processor in FLOP/s."""

from __future__ import annotations

import math
import statistics
import sys
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
from scripts.benchmarks.material import Row, corpus, engine_dtype, model_folder, shape_of
from scripts.benchmarks.measuring import run_module, seconds_of

GEMM_ROWS = 1024  # a GEMM of so many rows stays in the processor's caches
MEASUREMENT_SECONDS = 0.3
KV_PROJECTIONS = ("k_proj", "v_proj")  # all that the last layer needs for every token where only the last token is pooled


def limit(
    model: Annotated[list[str] | None, typer.Option(help="Model: minilm, 42M, 0.6B or 4B; repeatable. [default: minilm, 42M]")] = None,
    documents: Annotated[int, typer.Option(help="Documents of the demo corpus.")] = 10_000,
) -> Iterator[Row]:
    """Documents/s that a model's GEMMs alone allow on this host.

    Attention's own GEMMs do not count. A peer that reaches half of the limit cannot be beaten by more than 2 times."""
    for name in model or ["minilm", "42M"]:
        run = run_module("limit", model_folder(name), engine_dtype(), env=actor_environment())
        flop_per_s = float(run.output.splitlines()[-1])
        flop_per_token = 2 * sum(rows * columns for rows, columns in matrices(model_folder(name)))
        tokens = tokens_of(name, documents)
        yield {
            "model": name,
            "engine_dtype": engine_dtype(),
            "gflop_per_s": round(flop_per_s / 1e9),
            "mflop_per_token": round(flop_per_token / 1e6, 2),
            "limit_tokens_per_s": round(flop_per_s / flop_per_token),
            "documents": documents,
            "tokens": tokens,
            "limit_documents_per_s": round(flop_per_s / flop_per_token / tokens * documents, 1),
        }


def matrices(folder: Path) -> list[tuple[int, int]]:
    """Shapes of the weights that every token is multiplied by."""
    last = describe(str(folder), None).pooling == "last"
    with safe_open(folder / "model.safetensors", "numpy") as file:
        keys = file.keys()
        shapes = {key: tuple(file.get_slice(key).get_shape()) for key in keys}
    layers = max(map(layer_of, shapes))

    def for_all_tokens(key: str) -> bool:
        return 0 <= layer_of(key) < layers or (layer_of(key) == layers and (not last or any(part in key for part in KV_PROJECTIONS)))

    return [shape for key, shape in shapes.items() if len(shape) == 2 and for_all_tokens(key)]


def layer_of(key: str) -> int:
    """The number of the layer that a weight belongs to; -1 for a weight of no layer."""
    return next((int(part) for part in key.split(".") if part.isdigit()), -1)


def tokens_of(name: str, documents: int) -> int:
    tokenizer = load_tokenizer(describe(str(model_folder(name)), None), shape_of(name).max_tokens)
    texts = [text for path in corpus(documents).glob("*.parquet") for text in pq.read_table(path, columns=["text"])["text"].to_pylist()]
    return int(tokenizer.encode(texts, "").lengths.sum())


def best_gemm_rate(shapes: set[tuple[int, int]], dtype: str) -> float:
    """FLOP/s of the fastest GEMM: with these matrices, or a square one. Each is the median of five measurements."""
    sizes = [(size, size, size) for size in (2048, 4096)] + [(GEMM_ROWS, inner, columns) for columns, inner in sorted(shapes)]
    return max(statistics.median(2 * math.prod(size) / gemm_seconds(*size, dtype) for _ in range(5)) for size in sizes)


def gemm_seconds(rows: int, inner: int, columns: int, dtype: str) -> float:
    """Seconds of one GEMM. On CPU hosts vLLM packs its weights beforehand, which is up to a tenth faster than PyTorch's way."""
    import torch
    import vllm._custom_ops as vllm_ops
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    device = "cpu" if on_cpu else "cuda"
    left, weights = (torch.randn(size, inner, device=device).to(getattr(torch, dtype)) for size in (rows, columns))
    gemm = partial(torch.nn.functional.linear, left, weights)
    if on_cpu:
        current_platform.import_kernels()
        gemm = partial(vllm_ops.onednn_mm, vllm_ops.create_onednn_mm(weights.t()), left, None)

    def run(count: int) -> None:
        for _ in range(count):
            gemm()
        if not on_cpu:
            torch.cuda.synchronize()

    count = max(1, int(MEASUREMENT_SECONDS / max(seconds_of(partial(run, 2)) / 2, 1e-6)))
    return seconds_of(partial(run, count)) / count


if __name__ == "__main__":
    print(best_gemm_rate(set(matrices(Path(sys.argv[1]))), sys.argv[2]))
