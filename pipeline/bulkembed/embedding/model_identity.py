"""Which files of a model are read, their hashes, and the identity that follows from them.

Only what is read counts. A commit that edits a README, adds an ONNX export or any other note changes nothing.
"""

from __future__ import annotations

import hashlib
import re
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path

from bulkembed.embedding.model_modules import DENSE_WEIGHTS, MODULES_FILE, read_modules
from bulkembed.embedding.sentence_settings import PROMPTS_FILE, TRANSFORMER_FILES
from bulkembed.errors import ModelError
from bulkembed.records import Model

# What vLLM, tokenizers and bulkembed itself read, beside the configuration of the pooling, weights and code. Three files that vLLM opens
# are left out, since they cannot change a vector of token ids: generation_config.json, preprocessor_config.json and chat templates.
READ_NAMES = (
    *("config.json", MODULES_FILE, PROMPTS_FILE, *TRANSFORMER_FILES, "model.safetensors.index.json", "adapter_config.json"),
    *("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json"),
    *("hf_quant_config.json", "quant_config.json", "quantize_config.json"),
    *("params.json", "consolidated.safetensors.index.json"),  # of Mistral's own format, which vLLM prefers where it is there
)
WEIGHT_FILES = ("*.safetensors",)
CODE_FILES = ("*.py", "*/*.py")  # run only with engine.args.trust_remote_code, and only where a configuration names them
CODE_KEY = b'"auto_map"'  # in the configurations of a model that has code
SHA256, SHA1 = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{40}")


def file_hashes(folder: Path, weights: bool) -> tuple[tuple[str, str], ...]:
    """SHA-256 of every file that a tokenizer or an engine reads of a model, by its name below the folder.

    Raises ModelError where a file of the hub's cache is not the one that the hub has."""
    hashes = {name: file_hash(folder / name) for name in READ_NAMES if is_there(folder / name)}
    # Only now, when they are known to be whole, they are asked for the names of further files.
    modules = [module for module in read_modules(folder) if module.folder]
    names = [f"{module.folder}/config.json" for module in modules]
    names += [f"{module.folder}/{DENSE_WEIGHTS}" for module in modules if module.kind == "Dense"]
    patterns = [*(WEIGHT_FILES if weights else ()), *(CODE_FILES if has_code(folder) else ())]
    paths = {folder / name for name in names} | {path for pattern in patterns for path in folder.glob(pattern)}
    hashes |= {str(path.relative_to(folder)): file_hash(path) for path in paths if is_there(path)}
    return tuple(sorted(hashes.items()))


def is_there(path: Path) -> bool:
    """A link that leads nowhere is there: hashing it is an error that names it."""
    return path.is_symlink() or path.is_file()


def has_code(folder: Path) -> bool:
    paths = (folder / name for name in ("config.json", "tokenizer_config.json"))
    return any(CODE_KEY in path.read_bytes() for path in paths if path.exists())


def cached_weight_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of the weights of a commit in the hub's cache, by name. The cache names large files by their hash, so they are not read;
    the process that loads them checks their contents."""
    paths = {path: path.resolve().name for pattern in WEIGHT_FILES for path in folder.glob(pattern)}
    return {path.name: blob if SHA256.fullmatch(blob) else file_hash(path) for path, blob in paths.items()}


def model_digest(hashes: Iterable[tuple[str, str]]) -> str:
    """Identity of a model: names and contents of the files that are read. It is the same for a folder and for a hub model."""
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
    weights = {file for file in wanted.keys() | found.keys() if file.endswith(".safetensors") and "/" not in file}
    compared = wanted.keys() | found.keys()
    # A simulated engine loads no weights.
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
