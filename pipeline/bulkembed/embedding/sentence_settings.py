"""sentence-transformers' settings of a model: prompts, similarity, the limit of a text. Each is obeyed, or refused by name."""

from __future__ import annotations

from pathlib import Path

from bulkembed.embedding.settings_file import Settings, settings_if_there
from bulkembed.errors import ModelError

PROMPTS_FILE = "config_sentence_transformers.json"
# Settings of the Transformer module. sentence-transformers reads the first of these files that is there.
TRANSFORMER_FILES = (
    *("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_distilbert_config.json", "sentence_camembert_config.json"),
    *("sentence_albert_config.json", "sentence_xlm-roberta_config.json", "sentence_xlnet_config.json"),
)
# The names under which sentence-transformers looks for the two prompts, in its order.
DOCUMENT_PROMPTS = ("document", "passage", "corpus")
QUERY_PROMPTS = ("query",)
TEXT_ONLY = {"text": {"method": "forward", "method_output_name": "last_hidden_state"}}
LOADING = ("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs", "config_args", "config_kwargs")
# Arguments for loading that say how fast a model runs, or whose code it may run. Neither changes what it says.
HARMLESS_LOADING = (
    "attn_implementation",
    "trust_remote_code",
    "use_safetensors",
    "low_cpu_mem_usage",
    "device_map",
    "torch_dtype",
    "dtype",
)


def read_prompts(folder: Path) -> Settings:
    """The settings of the whole model, among them its prompts by name."""
    settings = settings_if_there(folder / PROMPTS_FILE)
    settings.refuse_others(
        ("__version__", "requirements", "prompts", "default_prompt_name", "similarity_fn_name", "truncate_dim", "model_type")
    )
    settings.require_only("model_type", ["SentenceTransformer"], "its vectors are not one dense vector of a text")
    prompts = settings.table("prompts")
    for name in prompts.values:
        prompts.text(name)
    default = settings.text("default_prompt_name")
    if default is not None and default not in prompts.values:
        raise ModelError(f"{settings.place}: default_prompt_name is {default!r}, which is none of its prompts")
    return settings


def require_cosine(settings: Settings, *, normalized: bool) -> None:
    """Every vector here has norm 1, which is the model's own only where it compares directions."""
    allowed = ("cosine", "dot", "euclidean", "manhattan") if normalized else ("cosine",)
    settings.require_only("similarity_fn_name", allowed, "it compares vectors that are not normalised, and bulkembed normalises them")


def prompt_of(settings: Settings, names: tuple[str, ...]) -> str:
    prompts = settings.table("prompts")
    for name in (*names, settings.text("default_prompt_name") or ""):
        if name in prompts.values:
            return prompts.text(name) or ""
    return ""


def text_limit(folder: Path, *, lower_cases: bool) -> int | None:
    """`max_seq_length`, in tokens; None where the tokenizer's own limit holds. `lower_cases`: whether the tokenizer does."""
    paths = [folder / name for name in TRANSFORMER_FILES]
    settings = settings_if_there(next((path for path in paths if path.exists()), paths[0]))
    known = (
        "max_seq_length",
        "do_lower_case",
        "transformer_task",
        "modality_config",
        "module_output_name",
        "unpad_inputs",
        "query_expansion",
    )
    settings.refuse_others((*known, *LOADING, "processing_kwargs", "query_length", "document_length"))
    settings.require_only("do_lower_case", [False, *([True] if lower_cases else [])], "tokenizer.json keeps capital letters")
    settings.require_only("transformer_task", ["feature-extraction"], "another output of the model is used")
    settings.require_only("modality_config", [TEXT_ONLY], "another input or output of the model is used")
    settings.require_only("module_output_name", ["token_embeddings"], "another output of the model is used")
    for name in ("processing_kwargs", "query_length", "document_length", "query_expansion"):
        settings.require_only(name, (), "the tokenizer is called in another way")
    for name in LOADING:
        settings.table(name).refuse_others(HARMLESS_LOADING)
    return settings.whole_number("max_seq_length")
