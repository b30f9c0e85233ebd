"""A model's config.json -> its sizes, and what its weights were trained for. Architectures name these keys differently."""

from __future__ import annotations

from dataclasses import dataclass

from bulkembed.embedding.settings_file import Settings
from bulkembed.errors import ModelError

# The names that transformers' architectures give to one size (their attribute_map).
WIDTH = ("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "embed_dim")
HEADS = ("num_attention_heads", "n_head", "num_heads", "n_heads", "encoder_attention_heads", "attention_heads")
LAYERS = ("num_hidden_layers", "n_layer", "num_layers", "n_layers", "encoder_layers", "layers")
HEAD_WIDTH = ("head_dim", "d_kv", "kv_channels")
# An engine takes the least of those that are there.
POSITIONS = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_sequence_length", "max_seq_length", "seq_len")

# Their first position is the one after the padding token's id, so that they have fewer than their table has rows.
PADDED_POSITIONS = {
    *("roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "mpnet", "roberta-prelayernorm", "data2vec-text", "xmod", "longformer"),
    *("ibert", "luke", "layoutlmv3"),
}
# Of embedding models that many use. vLLM does not load them; a run would only see that once its actors start.
UNLOADABLE = ("MPNetModel", "MPNetForMaskedLM", "JinaBertModel", "JinaBertForMaskedLM", "DistilBertModel", "T5EncoderModel", "AlbertModel")
PADDING_ID = 1  # of that family, where config.json does not say


@dataclass(frozen=True)
class Shape:
    """Sizes that config.json states."""

    architecture: str  # transformers' model_type, such as bert; empty where config.json does not say
    width: int  # components of a token's state
    positions: int | None  # tokens that a text can have; None where positions are relative, and not limited
    cache_values: int  # numbers in the KV cache for one token, all layers together
    dtype: str  # of the weights
    is_matryoshka: bool | None  # whether the first components are a vector of their own; None where config.json does not say
    trained_dims: tuple[int, ...]


def read_shape(config: Settings) -> Shape:
    """`config`: that of the whole model. A model of several parts has the one of its text part below `text_config`."""
    unloadable = [name for name in config.items("architectures") if name in UNLOADABLE]
    if unloadable:
        raise ModelError(f"{config.place}: vLLM does not load the architecture {unloadable[0]}; take another model")
    for name in ("is_decoder", "add_cross_attention"):  # of encoders, where vLLM takes no notice of them
        config.require_only(name, [False], "transformers makes a decoder of the model, in which no token sees those behind it")
    text = config.table("text_config")
    text = Settings(text.place, {**config.values, **text.values}) if text.values else config
    width, heads = text.needed_number(*WIDTH), text.needed_number(*HEADS)
    head_width = text.whole_number(*HEAD_WIDTH) or max(1, width // heads)
    return Shape(
        architecture=config.text("model_type") or "",
        width=width,
        positions=position_count(text),
        cache_values=2 * text.needed_number(*LAYERS) * (text.whole_number("num_key_value_heads") or heads) * head_width,
        dtype=text.text("dtype") or text.text("torch_dtype") or "float32",
        is_matryoshka=config.flag("is_matryoshka"),
        trained_dims=matryoshka_dims(config, width),
    )


def position_count(config: Settings) -> int | None:
    """How many tokens a text can have. The RoBERTa family counts positions from its padding token on."""
    limits = [limit for name in POSITIONS if config.values.get(name) != -1 and (limit := config.whole_number(name))]
    if not limits:
        return None
    if config.text("model_type") not in PADDED_POSITIONS:
        return min(limits)
    padding_id = config.values.get("pad_token_id", PADDING_ID)
    if isinstance(padding_id, bool) or not isinstance(padding_id, int) or not 0 <= padding_id < min(limits) - 1:
        raise config.error("pad_token_id", f"the id of a token below {min(limits) - 1}")
    return min(limits) - padding_id - 1


def matryoshka_dims(config: Settings, width: int) -> tuple[int, ...]:
    dims = config.items("matryoshka_dimensions")
    if any(isinstance(dim, bool) or not isinstance(dim, int) or not 1 <= dim <= width for dim in dims):
        raise ModelError(f"{config.place}: matryoshka_dimensions: expected whole numbers of 1 to {width} (got {str(dims)[:60]})")
    return tuple(dims)
