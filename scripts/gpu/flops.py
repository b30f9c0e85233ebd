"""Floating-point operations of a Qwen3 shape, and its matrix multiplications (GEMMs)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

Sizes = Mapping[str, int]


def layer_matrices(sizes: Sizes) -> dict[str, tuple[int, int]]:
    """(inputs, outputs) of each GEMM of a layer, as the engine fuses them."""
    hidden, intermediate, head = sizes["hidden_size"], sizes["intermediate_size"], sizes["head_dim"]
    heads, kv_heads = sizes["num_attention_heads"], sizes["num_key_value_heads"]
    return {
        "qkv": (hidden, (heads + 2 * kv_heads) * head),
        "out": (heads * head, hidden),
        "gate_up": (hidden, 2 * intermediate),
        "down": (intermediate, hidden),
    }


def matrix_weights(sizes: Sizes) -> int:
    """Parameters that every token is multiplied by: all but the embedding and the norms."""
    return sizes["num_hidden_layers"] * sum(inputs * outputs for inputs, outputs in layer_matrices(sizes).values())


def flops(sizes: Sizes, lengths: npt.NDArray[np.int64]) -> float:
    """Operations that documents of these lengths in tokens need.

    A token needs 2 for each weight. Causal attention needs, for token i of a document, 2 x 2 x i x heads x head_dim in each layer.
    Half of that is for the scores, half for the sum of the values."""
    counts = lengths.astype(np.float64)
    attention = 2 * sizes["num_hidden_layers"] * sizes["num_attention_heads"] * sizes["head_dim"] * (counts * (counts + 1)).sum()
    return float(2 * matrix_weights(sizes) * counts.sum() + attention)
