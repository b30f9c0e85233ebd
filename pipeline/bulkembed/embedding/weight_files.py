"""The weights of a model's folder: that they are there, that each file is whole, and that every library reads the same ones."""

from __future__ import annotations

from collections.abc import Collection
from math import prod
from pathlib import Path
from typing import Any

import orjson

from bulkembed.embedding.settings_file import POINTER, POINTER_ADVICE, read_settings
from bulkembed.errors import ModelError

WEIGHTS, WEIGHT_INDEX = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
MAX_HEADER_BYTES = 100 << 20  # that safetensors allows


def names_in(folder: Path) -> set[str]:
    """Raises ModelError where the folder cannot be listed: `glob` would find nothing in it."""
    try:
        return {path.name for path in folder.iterdir() if path.suffix == ".safetensors"}
    except OSError as error:
        raise ModelError(f"{folder}: cannot be listed: {error.strerror}; give this user the right to read it") from None


def listed_in(index: Path) -> set[str]:
    """The files that an index of weights names."""
    weights = read_settings(index).table("weight_map")
    return {weights.text(key) or "" for key in weights.values}


def missing_weights(folder: Path) -> str | None:
    """What is missing where there are no weights in safetensors, or fewer than their index lists; else None."""
    names = names_in(folder)
    if not names:
        return f"{folder}: holds no *.safetensors (other weights are not loaded)"
    for index in sorted(folder.glob("*.safetensors.index.json")):
        listed = listed_in(index)
        if not listed:
            return f"{index}: lists no weights"
        if missing := sorted(listed - names):
            return f"{folder / missing[0]}: missing ({index.name} lists it)"
    return None


def require_one_set(folder: Path, names: Collection[str]) -> None:
    """Raises ModelError where vLLM and transformers would make other weights of these files. `names`: those in the model's own folder."""
    adapter = next((name for name in ADAPTER_FILES if name in names or (folder / name).exists()), None)
    if adapter is not None:
        raise ModelError(
            f"{folder / adapter}: an adapter, which sentence-transformers adds to the weights and vLLM does not; "
            "merge it into them (merge_and_unload of peft), and leave its files out"
        )
    if not (folder / WEIGHT_INDEX).exists():
        if len(names) > 1:
            raise ModelError(f"{folder}: holds several sets of weights ({', '.join(sorted(names)[:3])}); leave only those of the model")
    elif WEIGHTS in names and WEIGHTS not in listed_in(folder / WEIGHT_INDEX):
        raise ModelError(
            f"{folder}: holds weights twice: transformers reads {WEIGHTS}, and vLLM the files of {WEIGHT_INDEX}; "
            "leave only those of the model"
        )


def values_in(folder: Path) -> int:
    """The number of values in the weights of a model's folder."""
    tensors = (tensor for name in names_in(folder) for tensor in tensors_of(folder / name).values())
    return sum(prod(tensor.get("shape", ())) for tensor in tensors)


def tensors_of(path: Path) -> dict[str, Any]:
    """The entry of each tensor in the header of a safetensors file. Raises ModelError where the file is not whole."""
    try:
        with path.open("rb") as file:
            start, size = file.read(len(POINTER)), path.stat().st_size
            length = int.from_bytes(start[:8], "little")
            file.seek(8)
            header = orjson.loads(file.read(length)) if length <= min(size, MAX_HEADER_BYTES) else None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror}; other weights than safetensors are not loaded") from None
    except orjson.JSONDecodeError:
        header = None
    if start == POINTER:
        raise ModelError(f"{path}: {POINTER_ADVICE}")
    if not isinstance(header, dict) or not all(isinstance(value, dict) for value in header.values()):
        raise ModelError(f"{path}: not a safetensors file; copy or fetch it again")
    tensors = {name: value for name, value in header.items() if name != "__metadata__"}
    try:
        end = 8 + length + max((int(value["data_offsets"][1]) for value in tensors.values()), default=0)
    except (KeyError, IndexError, TypeError, ValueError):
        raise ModelError(f"{path}: not a safetensors file; copy or fetch it again") from None
    if end != size:
        raise ModelError(f"{path}: has {size} bytes, but its header tells of {end}; copy or fetch it again")
    return tensors
