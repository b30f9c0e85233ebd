"""A configuration and what its model's files say -> the recipe."""

from __future__ import annotations

from typing import Any

from bulkembed.config.recipe import EVERY_COLUMN, EngineDtype, Recipe, RowSchema, VectorKey, engine_fields
from bulkembed.config.run_config import RunConfig
from bulkembed.config.template import canonical_template, find_doubled_prompt, prompt_for_task
from bulkembed.errors import ConfigError, ModelError
from bulkembed.records import Model, VectorForm


def resolve(cfg: RunConfig, model: Model, engine_dtype: EngineDtype) -> Recipe:
    """What `cfg` asks of `model`. `engine_dtype`: the one asked for, or what auto stands for on the hosts of the run.

    Raises ConfigError naming the key that the model cannot do, ModelError where its tokenizer needs code that the run does not trust."""
    require_trusted_tokenizer(cfg, model)
    template, text_columns = canonical_template(cfg.template, cfg.text_columns)
    vector_key = VectorKey(
        model_digest=model.digest,
        pooling=model.pooling,
        prompt=document_prompt(cfg, model),
        text_columns=text_columns,
        template=template,
        long_documents=cfg.long_documents,
        chunk_overlap=cfg.chunk_overlap,
        **token_limits(cfg, model),
        **engine_fields(cfg.engine, engine_dtype),
    )
    row_schema = RowSchema(
        id_column=cfg.id_column,
        keep_columns=tuple(name for name in cfg.keep_columns if name != EVERY_COLUMN),
        keep="all" if EVERY_COLUMN in cfg.keep_columns else "named",
        column_types=tuple(sorted(cfg.column_types.items())),
        vectors=stored_forms(cfg, model),
        int8_ranges=(),
    )
    return Recipe(vector_key, row_schema)


def require_trusted_tokenizer(cfg: RunConfig, model: Model) -> None:
    if model.has_tokenizer_code and cfg.engine.args.get("trust_remote_code") is not True:
        raise ModelError(
            f"model: tokenizer_config.json of {model.name} names code of its own (auto_map), which is not run, and which may make "
            "other tokens than tokenizer.json; remove the key if both make the same, or set trust_remote_code in [engine.args]"
        )


def token_limits(cfg: RunConfig, model: Model) -> dict[str, Any]:
    max_tokens = cfg.max_tokens or model.max_tokens
    if max_tokens > model.max_tokens:
        raise ConfigError(f"max_tokens: {max_tokens} is more than the {model.max_tokens} that {model.name} takes")
    chunk_tokens = cfg.chunk_tokens or max_tokens
    if chunk_tokens > max_tokens:
        raise ConfigError(f"chunk_tokens: {chunk_tokens} is more than max_tokens, which is {max_tokens}")
    return {"max_tokens": max_tokens, "chunk_tokens": chunk_tokens}


def stored_forms(cfg: RunConfig, model: Model) -> tuple[VectorForm, ...]:
    """The forms asked for, by default the model's own width."""
    forms = cfg.vectors or tuple(VectorForm(dim, cfg.dtype) for dim in cfg.dims or (model.default_dim,))
    for form in forms:
        if form.dim > model.width:
            raise ConfigError(f"dims: {form.dim} is more than the {model.width} dimensions of {model.name}")
        if form.dtype == "binary" and form.dim % 8:
            raise ConfigError(f"dims: binary vectors are packed in bytes, so {form.dim} must be a multiple of 8")
        if not model.trained_for(form.dim) and not cfg.allow_untrained_dims:
            raise ConfigError(
                f"dims: {model.name} was not trained for vectors of {form.dim} dimensions, only for {trained_dims(model)} "
                "(--allow-untrained-dims embeds all the same)"
            )
    return forms


def trained_dims(model: Model) -> str:
    return f"{model.min_trained_dim}..{model.width}" if model.min_trained_dim else ", ".join(map(str, (*model.trained_dims, model.width)))


def document_prompt(cfg: RunConfig, model: Model) -> str:
    """The text before every document. Raises ConfigError where it would stand there twice."""
    prompt = model.document_prompt if cfg.prompt is None else cfg.prompt
    if cfg.prompt_name is not None:
        prompts = dict(model.prompts)
        if cfg.prompt_name not in prompts:
            raise ConfigError(f"prompt_name: {model.name} has no prompt {cfg.prompt_name!r}, only {', '.join(prompts) or 'none'}")
        prompt = prompts[cfg.prompt_name]
    if cfg.instruction is not None:
        prompt = prompt_for_task(model, cfg.instruction)
    doubled = find_doubled_prompt(prompt, cfg.template, model)
    if doubled is not None:
        raise ConfigError(f"prompt: {doubled!r}, a prompt of {model.name}'s own, would stand before every document twice")
    return prompt
