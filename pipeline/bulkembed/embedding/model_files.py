"""What a model's own files say of it: pooling, prompts, width, context, Matryoshka range.

A wrong guess makes vectors that look fine and find nothing, so what the files do not say is an
error. Only weights in safetensors are taken, and no code of a model's is run here.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import orjson

from bulkembed.embedding import hub
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
SHA256, SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")
QWEN3_SMALLEST_DIM = 32
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
    if weights:
        require_weights(folder)
    return folder


def require_weights(folder: Path) -> None:
    """Raises ModelError where there are none in safetensors, or fewer than their index lists."""
    if not any(folder.glob("*.safetensors")):
        raise ModelError(f"{folder}: holds no *.safetensors (other weights are not loaded)")
    for index in folder.glob("*.safetensors.index.json"):
        listed = (read_json(index).get("weight_map") or {}).values()
        missing = sorted({name for name in listed if not (folder / name).is_file()})
        if missing:
            raise ModelError(f"{folder}/{missing[0]}: missing ({index.name} lists it)")


def describe(name: str, revision: str | None) -> Model:
    """Reads a model's files. Raises ModelError naming what is missing or says too little."""
    is_local = Path(name).expanduser().is_dir()
    try:
        return described(name, locate(name, revision, weights=is_local), is_local)
    except (AttributeError, KeyError, TypeError, ValueError) as error:  # another shape of JSON than that of the models known here
        raise ModelError(f"model: {name}: its JSON files do not say what they must: {type(error).__name__}: {error}") from error


def described(name: str, folder: Path, is_local: bool) -> Model:
    config = read_json(folder / "config.json")
    prompts_file = folder / "config_sentence_transformers.json"
    prompt_config = read_json(prompts_file) if prompts_file.exists() else {}
    pooling = pooling_of(folder)
    # The weights of a hub model need not be on this machine: its commit pins them.
    hashes = file_hashes(folder, weights=is_local)
    is_qwen3_embedding = QWEN3_EMBEDDING.search(name.rstrip("/").rsplit("/", 1)[-1]) is not None
    if is_qwen3_embedding and pooling != "last":
        raise ModelError(f"{folder}/1_Pooling/config.json: says {pooling} pooling, but Qwen3-Embedding is read at its last token")
    return Model(
        name=name,
        revision=None if is_local else folder.name,
        digest=folder_digest(hashes) if is_local else f"{name}@{folder.name}",
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


def file_hashes(folder: Path, weights: bool) -> tuple[tuple[str, str], ...]:
    """SHA-256 of every file that a tokenizer or an engine reads of a model, by its name below the folder.

    Raises ModelError where a file of the hub's cache is not the one that the hub has."""
    patterns = (*hub.DESCRIPTION_FILES, *(hub.WEIGHT_FILES if weights else ()))
    paths = sorted({path for pattern in patterns for path in folder.glob(pattern) if not path.is_dir()})
    return tuple((str(path.relative_to(folder)), file_hash(path)) for path in paths)


def folder_digest(hashes: Iterable[tuple[str, str]]) -> str:
    """Identity of a model that is a folder: of the contents of its weights, tokenizer and settings."""
    total = hashlib.sha256()
    for name, digest in hashes:
        total.update(f"{name}\0{digest}\0".encode())
    return total.hexdigest()[:32]


def file_hash(path: Path) -> str:
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:  # such as a link that leads nowhere
        raise ModelError(f"{path}: cannot be read: {error.strerror}") from None
    if is_damaged(path.resolve(), digest):
        raise ModelError(f"{path.resolve()}: damaged in the hub cache of {socket.gethostname()}: delete it, and it is fetched again")
    return digest


def is_damaged(blob: Path, sha256: str) -> bool:
    """Whether a file of the hub's cache, which gives a file the name of its hash, is not the one that came."""
    if SHA256.fullmatch(blob.name):
        return blob.name != sha256
    if not SHA1.fullmatch(blob.name) or blob.parent.name != "blobs":
        return False
    data = blob.read_bytes()  # a small file goes by git's hash, on some mirrors by the plain one
    forms = (b"blob %d\0" % len(data) + data, data)
    return blob.name not in {hashlib.sha1(form, usedforsecurity=False).hexdigest() for form in forms}


def require_described(described: Model, found: Mapping[str, str], host: str) -> None:
    """`found`: hashes of the files that `host` has loaded. Raises ModelError naming the first that is not the one described."""
    require_same(described.name, dict(described.file_hashes), "this run was planned with", found, host)


def require_same(name: str, wanted: Mapping[str, str], owner: str, found: Mapping[str, str], host: str) -> None:
    """Raises ModelError naming the first file of which `host` has found another content than `owner` has."""
    weights = {file for file in wanted.keys() | found.keys() if file.endswith(".safetensors")}
    compared = wanted.keys() | found.keys()
    # A simulated engine loads no weights, and those of a hub model were not there to be described.
    if weights.isdisjoint(wanted) or weights.isdisjoint(found):
        compared -= weights
    for file in sorted(compared):
        if wanted.get(file) != found.get(file):
            raise ModelError(
                f"model: {host} has another {file} of {name} ({short(found.get(file))}) than {owner} ({short(wanted.get(file))}); "
                "nothing of it is published; bring the same files to every node"
            )


def short(digest: str | None) -> str:
    return f"SHA-256 {digest[:12]}..." if digest else "no such file"


def read_json(path: Path) -> Any:
    try:
        return orjson.loads(path.read_bytes())
    except FileNotFoundError:
        raise ModelError(f"{path}: missing; a model needs its sentence-transformers files, which say how it is pooled") from None
    except orjson.JSONDecodeError as error:
        raise ModelError(f"{path}: not valid JSON: {error}") from None
