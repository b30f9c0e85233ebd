"""Measures engines that are loaded as a run loads them, and prints the numbers as JSON: `test_loaded_engine` judges them.

    python -m tests.support.engine_probe MODEL DTYPE

One process measures all: each load of vLLM takes seconds.
"""

from __future__ import annotations

import ctypes
import dataclasses
import json
import sys
from collections import defaultdict
from typing import Any

import numpy as np
import psutil

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import in_process
from bulkembed.embedding.model_files import describe
from bulkembed.records import Model, Pooling
from tests.support.processes import listening_addresses

Measured = dict[str, Any]


def embedder_of(model: Model, dtype: str, max_tokens: int) -> Any:
    return in_process.load(model, max_tokens, EngineConfig.model_validate({"dtype": dtype}))


def layers(model: Model, dtype: str, pooling: Pooling) -> Measured:
    """How many rows reach the parts of a Qwen3 layer, and what token states the engine gives."""
    lengths = (1, 700, 2, 1024, 300, 1025)
    documents = [np.random.default_rng(length).integers(300, 4000, length).astype(np.int32) for length in lengths]
    rows: dict[str, list[int]] = defaultdict(list)
    embedder = embedder_of(dataclasses.replace(model, pooling=pooling), dtype, 1200)

    def watch(network: Any) -> None:
        for layer in network.model.layers:
            layer.mlp.gate_up_proj.register_forward_pre_hook(lambda _, given: rows["gate_up_proj"].append(len(given[0])))
        network.model.layers[-1].mlp.register_forward_pre_hook(lambda _, given: rows["last mlp"].append(len(given[0])))

    embedder.llm.apply_model(watch)
    embedder.on_vector = lambda: rows["vectors"].append(1)
    vectors = embedder.embed(documents)
    measured = {"last_layer_rows": sum(rows["last mlp"]), "vectors": sum(rows["vectors"])}
    states = [embedder.token_states(document) for document in documents]
    of_a_part = embedder.token_states(documents[1][:400])
    last_states = [of_document[-1] / np.linalg.norm(of_document[-1]) for of_document in states]
    return measured | {
        "listening": sorted(listening_addresses(psutil.Process())),
        "max_rows": max(rows["gate_up_proj"]),
        "min_cosine_with_last_state": min(float(vector @ state) for vector, state in zip(vectors, last_states, strict=True)),
        "difference_of_a_part": float(np.abs(states[1][:400] - of_a_part).max()),
    }


def norms(dtype: str) -> Measured:
    """Who computes norms in this process, where engines were loaded, and how far from float64 the results are."""
    import torch
    from vllm import ir

    def exact(x: Any, weight: Any) -> Any:
        x, weight = x.double(), weight.double()
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * weight

    torch.manual_seed(0)
    wide = torch.randn(50, 192).to(getattr(torch, dtype))
    heads = wide.reshape(50, 6, 32)
    errors = []
    for x in (wide, wide[:, 64:128], heads[:, 2:4], heads[:, 1], heads.transpose(0, 1), wide[:1], wide[:0]):
        weight, residual = torch.randn(x.shape[-1]).to(x.dtype), torch.randn(x.shape).to(x.dtype)
        before = x.clone(), residual.clone()
        normed = ir.ops.rms_norm(x, weight, 1e-6)
        added, summed = ir.ops.fused_add_rms_norm(x, residual, weight, 1e-6)
        assert torch.equal(x, before[0])
        assert torch.equal(residual, before[1])
        total = x.double() + residual
        for got, expected in ((normed, exact(x, weight)), (added, exact(total, weight)), (summed, total)):
            assert got.dtype == x.dtype
            assert got.shape == expected.shape
            errors.append(((got - expected).abs() / (expected.abs() + 0.1)).max().item() if got.numel() else 0.0)
    return {"providers": [op.get_priority()[0] for op in (ir.ops.rms_norm, ir.ops.fused_add_rms_norm)], "max_error": max(errors)}


def heap_growth(model: Model, dtype: str) -> list[int]:
    """Bytes in use on the heap after steps of more and more different numbers of tokens."""
    fields = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
    heap = type("Heap", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in fields]})
    libc = ctypes.CDLL("libc.so.6")
    libc.mallinfo2.restype = heap
    embedder = embedder_of(model, dtype, 400)
    used = []
    for first, last in ((1, 10), (10, 60), (60, 110), (110, 160)):
        for more in range(first, last):  # steps of up to 8,192 tokens, no two of one size
            embedder.embed([np.full(394, 1000, np.int32)] * 20 + [np.full(more, 1000, np.int32)])
        used.append(int(libc.mallinfo2().uordblks))
    return used


def tiles(model: Model, dtype: str) -> Measured:
    """How many rows reach the widest part of a BERT layer, and how far a document's vector depends on the batch."""
    rows: list[int] = []
    embedder = embedder_of(model, dtype, 256)
    documents = [np.random.default_rng(seed).integers(1000, 30000, 250).astype(np.int32) for seed in range(20)]

    def watch(network: Any) -> None:
        for layer in network.model.encoder.layer:
            layer.intermediate.register_forward_pre_hook(lambda _, given: rows.append(len(given[0])))

    embedder.llm.apply_model(watch)
    together = embedder.embed(documents)
    alone = np.concatenate([embedder.embed([document]) for document in documents])
    return {"max_rows": max(rows), "sum_of_rows": sum(rows), "min_cosine": float((together * alone).sum(1).min())}


def main(name: str, dtype: str) -> None:
    measured: Measured = {}
    model = describe(name, None)
    with in_process.quiet():
        if model.pooling == "mean":
            measured["tiles"] = tiles(model, dtype)
        else:
            measured["layers last"] = layers(model, dtype, "last")
            if dtype == "bfloat16":
                measured["heap_growth"] = heap_growth(model, dtype)
            else:
                measured["layers mean"] = layers(model, dtype, "mean")
            measured["norms"] = norms(dtype)  # after two loads: the patches are in place once
    print(json.dumps(measured))


if __name__ == "__main__":
    main(*sys.argv[1:])
