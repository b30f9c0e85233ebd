"""Small twins, with random weights, of the embedding models that are used most: the same files, architecture and settings.

A twin has the key names, modules, tokenizer kind and settings of its model. Only its sizes and its weights are its own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

WIDTH = 64
SIZES = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 128, "vocab_size": 1000}
TYPES = "sentence_transformers.models."
IDENTITY, TANH = "torch.nn.modules.linear.Identity", "torch.nn.modules.activation.Tanh"


@dataclass(frozen=True)
class Dense:
    out_features: int
    activation: str = IDENTITY
    bias: bool = True


@dataclass(frozen=True)
class Twin:
    models: tuple[str, ...]  # the hub names of which this is a twin
    config: dict[str, Any]  # config.json
    tokenizer: str  # a kind of scripts/samples/twin_tokenizers.py
    pooling: str
    modules: tuple[str | Dense, ...] = ("Normalize",)  # after the pooling
    transformer: dict[str, Any] = field(default_factory=lambda: {"max_seq_length": 512, "do_lower_case": False})
    prompts: dict[str, str] = field(default_factory=dict)
    tokenizer_settings: dict[str, Any] = field(default_factory=dict)
    transformer_type: str = f"{TYPES}Transformer"
    weights_as: str | None = None  # the architecture whose weights stand in where transformers does not have the model's own


def bert(**changes: Any) -> dict[str, Any]:
    return {
        **{"model_type": "bert", "architectures": ["BertModel"], **SIZES, "max_position_embeddings": 512, "type_vocab_size": 2},
        **{"hidden_act": "gelu", "layer_norm_eps": 1e-12, "pad_token_id": 0, "position_embedding_type": "absolute"},
        **changes,
    }


def roberta(kind: str, architecture: str, positions: int) -> dict[str, Any]:
    sizes = {"max_position_embeddings": positions, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
    return bert(model_type=kind, architectures=[architecture], **sizes, pad_token_id=1, bos_token_id=0, eos_token_id=2)


def qwen2(**changes: Any) -> dict[str, Any]:
    return {
        **{"model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], **SIZES, "num_key_value_heads": 1, "hidden_act": "silu"},
        **{"max_position_embeddings": 32_768, "rms_norm_eps": 1e-6, "rope_theta": 1e6, "bos_token_id": 0, "eos_token_id": 0},
        **changes,
    }


GEMMA = {
    **{"model_type": "gemma3_text", "architectures": ["Gemma3TextModel"], **SIZES, "num_key_value_heads": 1, "head_dim": 32},
    **{
        "max_position_embeddings": 2048,
        "use_bidirectional_attention": True,
        "hidden_activation": "gelu_pytorch_tanh",
        "rms_norm_eps": 1e-6,
    },
    **{"sliding_window": 512, "query_pre_attn_scalar": 32, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": 2},
    **{"layer_types": ["sliding_attention", "full_attention"], "dtype": "float32"},
}
MODERNBERT = {
    **{"model_type": "modernbert", "architectures": ["ModernBertModel"], **SIZES, "max_position_embeddings": 8192, "pad_token_id": 0},
    **{"bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3, "local_attention": 128, "global_attn_every_n_layers": 3},
}
MISTRAL = {
    **{"model_type": "mistral", "architectures": ["MistralModel"], **SIZES, "num_key_value_heads": 1, "head_dim": 32},
    **{"max_position_embeddings": 32_768, "sliding_window": None, "rms_norm_eps": 1e-5, "bos_token_id": 0, "eos_token_id": 2},
}
NOMIC = {
    **{"model_type": "nomic_bert", "architectures": ["NomicBertModel"], "n_embd": WIDTH, "n_head": 2, "n_layer": 2, "n_positions": 8192},
    **{"n_inner": 128, "vocab_size": 1000, "type_vocab_size": 2, "activation_function": "swiglu", "rotary_emb_base": 1000},
    **{"auto_map": {"AutoModel": "nomic-ai/nomic-bert-2048--modeling_hf_nomic_bert.NomicBertModel"}, "rotary_emb_fraction": 1.0},
    **{"layer_norm_epsilon": 1e-12, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False, "prenorm": False},
}
NEW = bert(
    model_type="new",
    architectures=["NewModel"],
    auto_map={"AutoConfig": "Alibaba-NLP/new-impl--configuration.NewConfig", "AutoModel": "Alibaba-NLP/new-impl--modeling.NewModel"},
    max_position_embeddings=8192,
    position_embedding_type="rope",
    rope_theta=160_000,
)
JINA2 = bert(
    auto_map={"AutoConfig": "jinaai/jina-bert-implementation--configuration_bert.JinaBertConfig"},
    architectures=["JinaBertModel"],
    max_position_embeddings=8192,
    position_embedding_type="alibi",
)
JINA3 = roberta("xlm-roberta", "XLMRobertaModel", 8194) | {
    "auto_map": {"AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA"},
    "matryoshka_dimensions": [32, WIDTH],
}
GEMMA_PROMPTS = {"query": "task: search result | query: ", "document": "title: none | text: "}
ARCTIC_PROMPTS = {"query": "Represent this sentence for searching relevant passages: "}
LONG = {"max_seq_length": 8192, "do_lower_case": False}
LOWER = {"max_seq_length": 512, "do_lower_case": True}

TWINS: dict[str, Twin] = {
    "bge": Twin(
        ("BAAI/bge-small-en-v1.5", "BAAI/bge-base-en-v1.5", "BAAI/bge-large-en-v1.5"), bert(), "wordpiece", "cls", transformer=LOWER
    ),
    "bge-m3": Twin(("BAAI/bge-m3",), roberta("xlm-roberta", "XLMRobertaModel", 8194), "unigram", "cls", transformer=LONG),
    "e5": Twin(("intfloat/e5-small-v2", "intfloat/e5-base-v2", "intfloat/e5-large-v2"), bert(), "wordpiece", "mean"),
    "multilingual-e5-small": Twin(("intfloat/multilingual-e5-small",), bert(), "unigram", "mean"),
    "multilingual-e5": Twin(
        ("intfloat/multilingual-e5-base", "intfloat/multilingual-e5-large", "intfloat/multilingual-e5-large-instruct"),
        roberta("xlm-roberta", "XLMRobertaModel", 514),
        "unigram",
        "mean",
    ),
    "e5-mistral": Twin(
        ("intfloat/e5-mistral-7b-instruct",),
        MISTRAL,
        "mistral",
        "lasttoken",
        transformer={"max_seq_length": 4096},
        tokenizer_settings={"add_eos_token": True},
    ),
    "gte": Twin(("thenlper/gte-small", "thenlper/gte-base", "thenlper/gte-large"), bert(), "wordpiece", "mean"),
    "gte-modernbert": Twin(("Alibaba-NLP/gte-modernbert-base",), MODERNBERT, "modernbert", "cls", (), transformer=LONG),
    "gte-v1.5": Twin(
        ("Alibaba-NLP/gte-base-en-v1.5", "Alibaba-NLP/gte-multilingual-base"), NEW, "wordpiece", "cls", transformer=LONG, weights_as="bert"
    ),
    "gte-qwen2": Twin(
        ("Alibaba-NLP/gte-Qwen2-1.5B-instruct", "Alibaba-NLP/gte-Qwen2-7B-instruct"),
        qwen2(is_causal=False),
        "qwen-bare",
        "lasttoken",
        transformer=LONG,
        tokenizer_settings={"add_eos_token": True},
    ),
    "nomic": Twin(
        ("nomic-ai/nomic-embed-text-v1.5", "nomic-ai/nomic-embed-text-v2-moe"), NOMIC, "wordpiece", "mean", (), LONG, weights_as="bert"
    ),
    "jina-v2": Twin(("jinaai/jina-embeddings-v2-base-en",), JINA2, "wordpiece", "mean", (), LONG, weights_as="bert"),
    "jina-v3": Twin(
        ("jinaai/jina-embeddings-v3",), JINA3, "unigram", "mean", transformer_type="custom_st.Transformer", weights_as="xlm-roberta"
    ),
    "mxbai": Twin(("mixedbread-ai/mxbai-embed-large-v1",), bert(), "wordpiece", "cls", (), prompts=ARCTIC_PROMPTS | {"passage": ""}),
    "arctic": Twin(
        ("Snowflake/snowflake-arctic-embed-m", "Snowflake/snowflake-arctic-embed-l"), bert(), "wordpiece", "cls", prompts=ARCTIC_PROMPTS
    ),
    "arctic-v2": Twin(
        ("Snowflake/snowflake-arctic-embed-l-v2.0",),
        roberta("xlm-roberta", "XLMRobertaModel", 8194),
        "unigram",
        "cls",
        transformer=LONG,
        prompts={"query": "query: "},
    ),
    "minilm": Twin(
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L12-v2"),
        bert(),
        "wordpiece",
        "mean",
        transformer={"max_seq_length": 256, "do_lower_case": False},
    ),
    "multilingual-minilm": Twin(
        ("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",), bert(), "unigram", "mean", (), {"max_seq_length": 128}
    ),
    "mpnet": Twin(
        ("sentence-transformers/all-mpnet-base-v2", "sentence-transformers/multi-qa-mpnet-base-cos-v1"),
        roberta("mpnet", "MPNetModel", 514) | {"relative_attention_num_buckets": 32},
        "mpnet",
        "mean",
        transformer={"max_seq_length": 384, "do_lower_case": False},
    ),
    "roberta": Twin(
        ("sentence-transformers/all-roberta-large-v1",), roberta("roberta", "RobertaModel", 514), "roberta", "mean", transformer={}
    ),
    "embeddinggemma": Twin(
        ("google/embeddinggemma-300m",),
        GEMMA,
        "gemma",
        "mean",
        (Dense(256, bias=False), Dense(WIDTH, bias=False), "Normalize"),
        {"max_seq_length": 2048, "do_lower_case": False},
        GEMMA_PROMPTS,
    ),
    "stella": Twin(
        ("NovaSearch/stella_en_1.5B_v5",),
        qwen2(is_causal=False, auto_map={"AutoModel": "modeling_qwen.Qwen2Model"}),
        "qwen",
        "mean",
        (Dense(32),),
        {"max_seq_length": 512, "do_lower_case": False},
    ),
    "labse": Twin(
        ("sentence-transformers/LaBSE",), bert(), "wordpiece-cased", "cls", (Dense(WIDTH, TANH), "Normalize"), {"max_seq_length": 256}
    ),
}
