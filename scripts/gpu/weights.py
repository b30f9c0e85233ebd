"""Random weights of a model. They are made on the device and written one by one, so that a 4B shape takes seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DEVIATION = 0.02  # standard deviation of Qwen3's own initial weights


def write_random(folder: Path, config: Any, device: str) -> None:
    """Writes `config.json` and `model.safetensors` in bfloat16. The weights file appears when it is complete."""
    import torch
    from transformers import Qwen3Model

    config.architectures, config.dtype = ["Qwen3Model"], torch.bfloat16
    config.save_pretrained(folder)
    with torch.device("meta"):
        shapes = {name: tuple(weight.shape) for name, weight in Qwen3Model(config).named_parameters()}
    torch.manual_seed(0)
    partial = folder / "model.safetensors.partial"
    with partial.open("wb") as file:
        file.write(header(shapes))
        for name, shape in shapes.items():
            is_norm = name.endswith("norm.weight")
            weight = torch.ones(shape, device=device) if is_norm else torch.randn(shape, device=device, dtype=torch.bfloat16) * DEVIATION
            weight.to(torch.bfloat16).view(torch.int16).cpu().numpy().tofile(file)
    partial.rename(folder / "model.safetensors")


def header(shapes: dict[str, tuple[int, ...]]) -> bytes:
    """The header of a safetensors file: its length, and the place of each tensor. https://huggingface.co/docs/safetensors"""
    text = json.dumps(dict(entries(shapes)) | {"__metadata__": {"format": "pt"}}).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def entries(shapes: dict[str, tuple[int, ...]]) -> Iterator[tuple[str, dict[str, Any]]]:
    start = 0
    for name, shape in shapes.items():
        end = start + 2 * math.prod(shape)
        yield name, {"dtype": "BF16", "shape": shape, "data_offsets": [start, end]}
        start = end
