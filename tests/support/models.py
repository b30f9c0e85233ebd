"""A model as its files say."""

from __future__ import annotations

from bulkembed.config.recipe import Recipe
from bulkembed.config.resolution import resolve
from bulkembed.config.run_config import RunConfig
from bulkembed.records import Model

MODEL = Model(
    name="m",
    revision=None,
    digest="digest",
    width=64,
    default_dim=64,
    max_tokens=512,
    cache_values=128,
    pooling="last",
    prompts=(("query", "Instruct: Find it\nQuery:"), ("note", "Note: ")),
    document_prompt="",
    query_prompt="Instruct: Find it\nQuery:",
    min_trained_dim=32,
    trained_dims=(),
    native_dtype="bfloat16",
    end_token="<e>",
    file_hashes=(),
)


def recipe(cfg: RunConfig, model: Model = MODEL) -> Recipe:
    """The recipe of a configuration, on a host that is fastest in float32 where it leaves the dtype to the host."""
    return resolve(cfg, model, "float32" if cfg.engine.dtype == "auto" else cfg.engine.dtype)
