"""What a model's own files say of it: pooling, prompts, width, context, Matryoshka range.

A wrong guess makes vectors that look right and find nothing. What the files do not say is therefore an error. Only weights in
safetensors are read, and no code of a model is run here.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from bulkembed.embedding import hub
from bulkembed.embedding.model_identity import cached_weight_hashes, file_hashes, model_digest, read_json
from bulkembed.errors import ModelError
from bulkembed.records import Model, Pooling

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
QWEN3_MIN_DIM = 32
QWEN3_END_TOKEN = "<|endoftext|>"  # noqa: S105


def locate(name: str, revision: str | None, weights: bool) -> Path:
    """The model's folder on this machine, from the hub's cache or the hub where it is no folder.

    `weights`: whether the weights are needed, or only the files that describe the model. Raises ModelError where
    they are missing, HubError where the hub does not answer."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ModelError(f"revision: {name} is a folder, which has no revisions; leave revision out")
        folder = folder.resolve()
    elif name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ModelError(f"model: {name} is neither a folder nor a hub name such as Qwen/Qwen3-Embedding-4B")
    else:
        folder = hub.fetch(name, revision, weights)
    if weights and (missing := missing_weights(folder)):
        raise ModelError(missing)
    return folder


def missing_weights(folder: Path) -> str | None:
    """What is missing where there are no weights in safetensors, or fewer than their index lists; else None."""
    if not any(folder.glob("*.safetensors")):
        return f"{folder}: holds no *.safetensors (other weights are not loaded)"
    for index in folder.glob("*.safetensors.index.json"):
        listed = (read_json(index).get("weight_map") or {}).values()
        missing = sorted({name for name in listed if not (folder / name).is_file()})
        if missing:
            return f"{folder}/{missing[0]}: missing ({index.name} lists it)"
    return None


def hub_weight_hashes(name: str, folder: Path) -> dict[str, str]:
    """SHA-256 of a hub model's weights, which need not be on this machine. `folder`: its commit in the hub's cache.

    The cache has them where the weights are there, else the hub lists them.
    Raises ModelError where there are none in safetensors, HubError where the hub does not answer."""
    if missing_weights(folder) is None:
        return cached_weight_hashes(folder)
    listed = hub.listed_weights(name, folder.name)
    if not listed:
        raise ModelError(f"model: {name} has no *.safetensors on the hub (other weights are not loaded)")
    sha256 = {file: digest for file, digest in listed.items() if digest is not None}
    if len(sha256) < len(listed):  # small weights are kept in git itself, which does not know their SHA-256
        return cached_weight_hashes(locate(name, folder.name, weights=True))
    return sha256


def describe(name: str, revision: str | None) -> Model:
    """Reads a model's files. Raises ModelError naming what is missing or says too little."""
    is_local = Path(name).expanduser().is_dir()
    try:
        return describe_folder(name, locate(name, revision, weights=is_local), is_local)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # another shape of JSON than that of the models known here
        raise ModelError(f"model: {name}: its JSON files do not say what they must: {type(error).__name__}: {error}") from error


def describe_folder(name: str, folder: Path, is_local: bool) -> Model:
    config = read_json(folder / "config.json")
    prompts_file = folder / "config_sentence_transformers.json"
    prompt_config = read_json(prompts_file) if prompts_file.exists() else {}
    pooling = pooling_of(folder)
    hashes = file_hashes(folder, weights=is_local)
    if not is_local:
        hashes = tuple(sorted({**dict(hashes), **hub_weight_hashes(name, folder)}.items()))
    is_qwen3_embedding = QWEN3_EMBEDDING.search(name.rstrip("/").rsplit("/", 1)[-1]) is not None
    if is_qwen3_embedding and pooling != "last":
        raise ModelError(f"{folder}/1_Pooling/config.json: says {pooling} pooling, but Qwen3-Embedding is read at its last token")
    return Model(
        name=name,
        revision=None if is_local else folder.name,
        digest=model_digest(hashes),
        width=int(config["hidden_size"]),
        max_tokens=context_length(folder, config),
        cache_values=cache_values(config),
        pooling=pooling,
        prompts=tuple((str(key), str(text or "")) for key, text in (prompt_config.get("prompts") or {}).items()),
        document_prompt=prompt_of(prompt_config, DOCUMENT_PROMPTS),
        query_prompt=prompt_of(prompt_config, QUERY_PROMPTS),
        min_trained_dim=QWEN3_MIN_DIM if is_qwen3_embedding else None,
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
