"""What a model's own files say of it: pooling, prompts, width, context, Matryoshka range.

A wrong guess makes vectors that look fine and find nothing, so what the files do not say is an
error. Only weights in safetensors are taken, and no code of a model's is ever run.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

import orjson

from pipeline.errors import ModelError
from pipeline.records import Model, Pooling

DESCRIPTION_FILES = ["*.json", "*.txt", "*/config.json"]
POOLING_MODES: dict[str, Pooling] = {
    "pooling_mode_lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
}
# The names under which sentence-transformers looks for the two prompts, in its order.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
QUERY_PROMPTS = ("query",)

# Trained with Matryoshka representation learning from 32 dims up, and with the vector read at this
# token; neither is in the model's files. https://huggingface.co/Qwen/Qwen3-Embedding-4B
QWEN3_EMBEDDING = re.compile(r"Qwen3-Embedding-", re.IGNORECASE)
QWEN3_SMALLEST_DIM = 32
QWEN3_END_TOKEN = "<|endoftext|>"  # noqa: S105


@cache
def locate(name: str, revision: str | None, weights: bool) -> Path:
    """The model's folder on this machine, from the hub's cache or the hub where it is no folder.

    `weights`: whether the weights are needed, or only the files that describe the model."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"revision: {name} is a folder, which has no revisions")
        return folder.resolve()
    if name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"model: {name} is neither a folder nor a hub name such as Qwen/Qwen3-Embedding-4B")
    import huggingface_hub  # takes half a second

    wanted = [*DESCRIPTION_FILES, *(["*.safetensors"] if weights else [])]
    try:
        return Path(huggingface_hub.snapshot_download(name, revision=revision, allow_patterns=wanted))
    except Exception as error:  # of the hub, of its HTTP client, of the network: all end the same way
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"model: {name} is no folder here and could not be had from the hub: {reason}") from error


def describe(name: str, revision: str | None) -> Model:
    """Reads a model's files. Raises ModelError naming the file that is missing or says too little."""
    folder = locate(name, revision, weights=False)
    is_local = Path(name).expanduser().is_dir()
    config = read_json(folder / "config.json")
    prompts_file = folder / "config_sentence_transformers.json"
    prompt_config = read_json(prompts_file) if prompts_file.exists() else {}
    pooling = pooling_of(folder)
    hashes = tuple((path.name, file_hash(path)) for path in hashed_files(folder, is_local))
    is_qwen3_embedding = QWEN3_EMBEDDING.search(name.rstrip("/").rsplit("/", 1)[-1]) is not None
    if is_qwen3_embedding and pooling != "last":
        raise ModelError(f"{folder}/1_Pooling/config.json: says {pooling} pooling, but Qwen3-Embedding is read at its last token")
    return Model(
        name=name,
        revision=None if is_local else folder.name,
        digest=folder_digest(folder, dict(hashes)) if is_local else f"{name}@{folder.name}",
        width=int(config["hidden_size"]),
        max_tokens=context_length(folder, config),
        cache_values=cache_values(config),
        pooling=pooling,
        prompts=tuple((str(key), str(text or "")) for key, text in (prompt_config.get("prompts") or {}).items()),
        document_prompt=prompt_of(prompt_config, DOCUMENT_PROMPTS),
        query_prompt=prompt_of(prompt_config, QUERY_PROMPTS),
        smallest_dim=QWEN3_SMALLEST_DIM if is_qwen3_embedding else None,
        trained_dims=tuple(int(dim) for dim in config.get("matryoshka_dimensions") or ()),
        native_dtype=str(config.get("dtype") or config.get("torch_dtype") or "float32"),
        end_token=QWEN3_END_TOKEN if is_qwen3_embedding else end_token_of(folder, pooling),
        file_hashes=hashes,
    )


def pooling_of(folder: Path) -> Pooling:
    modules = read_json(folder / "modules.json")
    place = next((module["path"] for module in modules if module["type"].endswith("Pooling")), None)
    if place is None:
        raise ModelError(f"{folder}/modules.json: lists no Pooling module")
    unknown = [m["type"] for m in modules if not m["type"].endswith(("Transformer", "Pooling", "Normalize"))]
    if unknown:
        raise ModelError(f"{folder}/modules.json: module {unknown[0]} is not supported (Transformer, Pooling, Normalize are)")
    path = folder / place / "config.json"
    settings = read_json(path)
    modes = [mode for mode, on in settings.items() if mode.startswith("pooling_mode_") and on is True]
    modes = modes or [f"pooling_mode_{settings.get('pooling_mode')}"]  # newer files name the mode
    aliases = {"pooling_mode_mean": "pooling_mode_mean_tokens", "pooling_mode_cls": "pooling_mode_cls_token"}
    modes = [aliases.get(mode, mode) for mode in modes]
    if len(modes) != 1 or modes[0] not in POOLING_MODES:
        raise ModelError(f"{path}: pooling {modes} is not supported; one of {', '.join(POOLING_MODES)} must be on")
    if settings.get("include_prompt") is False:
        raise ModelError(f"{path}: leaves the prompt out of the pooling (include_prompt false), which is not supported")
    return POOLING_MODES[modes[0]]


def context_length(folder: Path, config: dict[str, Any]) -> int:
    """The shortest of what the files allow, in tokens."""
    limits = [int(config["max_position_embeddings"])]
    for name, key in (("sentence_bert_config.json", "max_seq_length"), ("tokenizer_config.json", "model_max_length")):
        path = folder / name
        limit = read_json(path).get(key) if path.exists() else None
        if limit is not None:
            limits.append(int(limit))
    return min(limits)


def cache_values(config: dict[str, Any]) -> int:
    heads = int(config["num_attention_heads"])
    head_dim = config.get("head_dim") or int(config["hidden_size"]) // heads
    return 2 * int(config["num_hidden_layers"]) * int(config.get("num_key_value_heads") or heads) * int(head_dim)


def prompt_of(settings: dict[str, Any], names: tuple[str, ...]) -> str:
    prompts = settings.get("prompts") or {}
    for name in (*names, settings.get("default_prompt_name")):
        if name in prompts:
            return str(prompts[name] or "")
    return ""


def end_token_of(folder: Path, pooling: Pooling) -> str | None:
    """For last-token pooling, the special token that the tokenizer must append."""
    if pooling != "last":
        return None
    path = folder / "tokenizer_config.json"
    settings = read_json(path)
    for key in ("eos_token", "pad_token"):
        token = settings.get(key)
        content = token.get("content") if isinstance(token, dict) else token
        if content and tokenizer_appends(folder, content):
            return str(content)
    raise ModelError(
        f"{folder}/tokenizer.json: appends neither the eos nor the pad token of {path.name}, so last-token pooling would read a word"
    )


def tokenizer_appends(folder: Path, token: str) -> bool:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json")).encode("a").tokens[-1] == token


def hashed_files(folder: Path, is_local: bool) -> list[Path]:
    """What pins a vector: tokenizer and weights. A hub model's weights may not be on this machine; its commit pins them."""
    weights = sorted(folder.glob("*.safetensors")) if is_local else []
    if is_local and not weights:
        raise ModelError(f"{folder}: holds no *.safetensors (other weights are not loaded)")
    return [*(path for path in [folder / "tokenizer.json"] if path.exists()), *weights]


def folder_digest(folder: Path, hashes: dict[str, str]) -> str:
    """Identity of a model that is a folder: of the contents of its weights, tokenizer and settings."""
    described = sorted({path for pattern in DESCRIPTION_FILES for path in folder.glob(pattern)} - {folder / name for name in hashes})
    total = hashlib.sha256()
    for name, digest in [*hashes.items(), *((str(path.relative_to(folder)), file_hash(path)) for path in described)]:
        total.update(f"{name}\0{digest}\0".encode())
    return total.hexdigest()[:32]


def file_hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; a model needs its sentence-transformers files, which say how it is pooled") from None
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
