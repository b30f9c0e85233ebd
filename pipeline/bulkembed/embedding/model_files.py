"""What a model's own files say of it: pooling, prompts, width, context, Matryoshka range.

A wrong guess makes vectors that look right and find nothing. What the files do not say is therefore an error. Only weights in
safetensors are read, and no code of a model is run here.
"""

from __future__ import annotations

from pathlib import Path

from bulkembed.embedding import hub, model_modules, sentence_settings, tokenizer_settings
from bulkembed.embedding.model_identity import cached_weight_hashes, file_hashes, model_digest
from bulkembed.embedding.model_shape import Shape, read_shape
from bulkembed.embedding.settings_file import Settings, read_settings, settings_if_there
from bulkembed.embedding.weight_files import missing_weights, names_in, require_one_set, tensors_of
from bulkembed.errors import ModelError
from bulkembed.records import Model, Pooling

MAX_TOKENS = 1 << 30  # tokenizer files write larger numbers where they know no limit

# Qwen3-Embedding was trained with Matryoshka representation learning from 32 dims up, and with the vector read at this token. Neither is
# in its files. What is in them, in copies and fine-tunes too, is the prompt. https://huggingface.co/Qwen/Qwen3-Embedding-4B
QWEN3_QUERY_PROMPT = "Instruct: Given a web search query, retrieve relevant passages that answer the query\nQuery:"
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
    if weights:
        require_weights(folder)
    return folder


def require_weights(folder: Path) -> None:
    """Raises ModelError where the weights are not all there and whole, or where libraries would read others."""
    if missing := missing_weights(folder):
        raise ModelError(missing)
    names = names_in(folder)
    require_one_set(folder, names)
    for name in sorted(names):
        tensors_of(folder / name)


def hub_weight_hashes(name: str, folder: Path) -> dict[str, str]:
    """SHA-256 of a hub model's weights, which need not be on this machine. `folder`: its commit in the hub's cache.

    The cache has them where the weights are there, else the hub lists them.
    Raises ModelError where there are none in safetensors, HubError where the hub does not answer."""
    if missing_weights(folder) is None:
        return cached_weight_hashes(folder)
    listed = hub.listed_weights(name, folder.name)
    if not listed:
        raise ModelError(f"model: {name} has no *.safetensors on the hub (other weights are not loaded)")
    require_one_set(folder, listed)
    sha256 = {file: digest for file, digest in listed.items() if digest is not None}
    if len(sha256) < len(listed):  # small weights are kept in git itself, which does not know their SHA-256
        return cached_weight_hashes(locate(name, folder.name, weights=True))
    return sha256


def describe(name: str, revision: str | None) -> Model:
    """Reads a model's files. Raises ModelError naming what is missing or says too little."""
    is_local = Path(name).expanduser().is_dir()
    folder = locate(name, revision, weights=is_local)
    modules = model_modules.read_modules(folder)
    shape = read_shape(read_settings(folder / "config.json"))
    pooling = model_modules.pooling_of(folder, modules, shape.width)
    model_modules.require_plain_norm(folder, modules)
    layers = model_modules.dense_layers(folder, modules, pooling, shape.width)
    settings = sentence_settings.read_prompts(folder)
    sentence_settings.require_cosine(settings, normalized=any(module.kind == "Normalize" for module in modules))
    tokenizer_settings.require_obeyed(folder)
    query_prompt = sentence_settings.prompt_of(settings, sentence_settings.QUERY_PROMPTS)
    is_qwen3_embedding = shape.architecture == "qwen3" and query_prompt == QWEN3_QUERY_PROMPT
    if is_qwen3_embedding and pooling != "last":
        raise ModelError(f"{folder}: says {pooling} pooling, but Qwen3-Embedding, whose prompt it has, is read at its last token")
    width = layers[-1].out_features if layers else shape.width
    hashes = hashes_of(name, folder, weights_here=is_local)
    return Model(
        name=name,
        revision=None if is_local else folder.name,
        digest=model_digest(hashes),
        width=width,
        default_dim=settings.whole_number("truncate_dim") or width,
        max_tokens=token_limit(folder, shape),
        cache_values=shape.cache_values,
        pooling=pooling,
        prompts=tuple((key, str(text or "")) for key, text in settings.table("prompts").values.items()),
        document_prompt=sentence_settings.prompt_of(settings, sentence_settings.DOCUMENT_PROMPTS),
        query_prompt=query_prompt,
        min_trained_dim=min_trained_dim(shape, is_qwen3_embedding=is_qwen3_embedding),
        trained_dims=trained_dims(shape, settings, width),
        native_dtype=shape.dtype,
        end_token=end_token_of(folder, pooling, is_qwen3_embedding=is_qwen3_embedding),
        file_hashes=hashes,
        has_tokenizer_code=tokenizer_settings.names_code(folder),
    )


def hashes_of(name: str, folder: Path, *, weights_here: bool) -> tuple[tuple[str, str], ...]:
    """`weights_here`: whether the weights must be on this machine; else the hub's own hashes of them serve."""
    hashes = file_hashes(folder, weights=weights_here)
    return hashes if weights_here else tuple(sorted({**dict(hashes), **hub_weight_hashes(name, folder)}.items()))


def token_limit(folder: Path, shape: Shape) -> int:
    """How many tokens of a text the model reads. sentence-transformers' own limit goes before the tokenizer's."""
    rules = read_settings(folder / "tokenizer.json")
    own = sentence_settings.text_limit(folder, lower_cases=tokenizer_settings.lower_cases(rules.table("normalizer")))
    path = folder / tokenizer_settings.TOKENIZER_CONFIG
    limits = [limit for limit in (shape.positions, own or settings_if_there(path).whole_number("model_max_length", "max_len")) if limit]
    if not limits or min(limits) > MAX_TOKENS:
        raise ModelError(f"{folder}: its files do not say how many tokens a text can have; set model_max_length in {path.name}")
    return min(limits)


def min_trained_dim(shape: Shape, *, is_qwen3_embedding: bool) -> int | None:
    """The least dimension of a Matryoshka range; None where there is no range, only a list of dimensions or none."""
    if shape.trained_dims or shape.is_matryoshka is False:
        return None
    if is_qwen3_embedding:
        return QWEN3_MIN_DIM
    return 1 if shape.is_matryoshka else None


def trained_dims(shape: Shape, settings: Settings, width: int) -> tuple[int, ...]:
    """The Matryoshka dimensions that the files list, and the one to which sentence-transformers cuts the model's vectors."""
    cut = settings.whole_number("truncate_dim")
    if cut is not None and cut > width:
        raise ModelError(f"{settings.place}: truncate_dim is {cut}, more than the {width} components of the model's vectors")
    return (*shape.trained_dims, *([cut] if cut is not None and cut not in shape.trained_dims else []))


def end_token_of(folder: Path, pooling: Pooling, *, is_qwen3_embedding: bool) -> str | None:
    """For last-token pooling, the special token that the tokenizer must append."""
    settings = settings_if_there(folder / tokenizer_settings.TOKENIZER_CONFIG)
    if is_qwen3_embedding:
        return QWEN3_END_TOKEN
    if pooling != "last" and not any(map(settings.flag, tokenizer_settings.ADDED_AROUND)):
        return None
    before, after = outer_tokens(folder)
    tokenizer_settings.require_appended(settings, before, after)
    if pooling != "last":
        return None
    if after in (settings.token("eos_token"), settings.token("pad_token")):
        return after
    raise ModelError(
        f"{folder}/tokenizer.json: appends neither the eos nor the pad token of {tokenizer_settings.TOKENIZER_CONFIG}, "
        "so last-token pooling would read a word"
    )


def outer_tokens(folder: Path) -> tuple[str, str]:
    """The first and the last token that tokenizer.json makes of a text of one letter."""
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        tokens = Tokenizer.from_file(str(path)).encode("a").tokens
    except Exception as error:  # noqa: BLE001 - the Rust side raises plain Exception
        raise ModelError(f"{path}: not a usable tokenizer.json: {error}") from None
    return (tokens[0], tokens[-1]) if tokens else ("", "")
