"""Writes the twins of scripts/samples/twins.py.

python -m scripts.samples.twin_files OUT [NAME ...]
"""

from __future__ import annotations

import argparse
import json
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from scripts.samples import random_qwen3
from scripts.samples.twin_tokenizers import KINDS
from scripts.samples.twins import TWINS, TYPES, WIDTH, Dense, Twin, bert

WEIGHTS_OF_NOTHING = (2).to_bytes(8, "little") + b"{}"  # a safetensors file of no tensor


def describe(out: Path, twin: Twin) -> None:
    """Writes all files but the model's own weights."""
    modules: tuple[str | Dense, ...] = ("Transformer", "Pooling", *twin.modules)
    entries, width = [], WIDTH
    for number, module in enumerate(modules):
        kind = "Dense" if isinstance(module, Dense) else module
        folder = f"{number}_{kind}" if number else ""
        kind_type = twin.transformer_type if not number else f"{TYPES}{kind}"
        entries.append({"idx": number, "name": str(number), "path": folder, "type": kind_type})
        if isinstance(module, Dense):
            write_dense(out / folder, module, width)
            width = module.out_features
    pooling = {"word_embedding_dimension": WIDTH, "include_prompt": True, "pooling_mode_mean_tokens": False}
    suffix = {"cls": "cls_token", "mean": "mean_tokens"}.get(twin.pooling, twin.pooling)
    write_json(out / "modules.json", entries)
    write_json(out / "1_Pooling" / "config.json", pooling | {f"pooling_mode_{suffix}": True})
    write_json(out / "sentence_bert_config.json", twin.transformer)
    write_json(out / "config_sentence_transformers.json", {"prompts": twin.prompts, "similarity_fn_name": "cosine"})
    tokenizer, settings = KINDS[twin.tokenizer]()
    tokenizer.save(str(out / "tokenizer.json"))
    write_json(out / "tokenizer_config.json", settings | twin.tokenizer_settings)
    write_json(out / "config.json", twin.config)


def write_json(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random_qwen3.write_json(path, value)


def write_dense(folder: Path, dense: Dense, width: int) -> None:
    settings = {"in_features": width, "out_features": dense.out_features, "bias": dense.bias, "activation_function": dense.activation}
    write_json(folder / "config.json", settings)
    import numpy as np

    chance = np.random.default_rng(0)
    tensors = {"linear.weight": chance.normal(size=(dense.out_features, width)) / width**0.5}
    if dense.bias:
        tensors["linear.bias"] = chance.normal(size=dense.out_features) / 4
    header, data = {}, b""
    for name, values in tensors.items():
        raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(values.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + data)


def make(out: Path, twin: Twin) -> None:
    """Writes the whole folder. The seed of the weights is fixed."""
    import torch
    from transformers import AutoConfig, AutoModel

    describe(out, twin)
    config = dict(twin.config)
    if twin.weights_as is not None:
        config = bert(model_type=twin.weights_as)
    torch.manual_seed(0)
    model = AutoModel.from_config(AutoConfig.for_model(**config), dtype=torch.float32)
    spread_weights(model.parameters())
    model.save_pretrained(out)
    write_json(out / "config.json", twin.config)


def spread_weights(parameters: Iterable[Any]) -> None:
    """Random weights are so small by default that all texts have nearly the same vector."""
    for parameter in parameters:
        if parameter.ndim > 1:
            parameter.data.mul_(4)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes small twins of embedding models, with random weights.")
    parser.add_argument("out", type=Path, help="folder in which each twin has a folder")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(TWINS)} (default: all)")
    options = parser.parse_args()
    for name in options.names or TWINS:
        make(options.out / name, TWINS[name])
