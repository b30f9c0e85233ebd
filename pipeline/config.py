"""The configuration of a run: validated, frozen, unknown keys refused."""

from __future__ import annotations

import hashlib
import string
import tomllib
from pathlib import Path
from typing import Any, Literal, Self

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from pipeline.errors import ConfigError
from pipeline.records import Model


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineConfig(Section):
    """How vectors are made. Only `kind` and `dtype` change them."""

    kind: Literal["vllm", "simulated"] = "vllm"
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    replicas: int | None = Field(default=None, ge=1, description="embedding actors; default one per GPU, or one per CPU host")
    max_replicas: int | None = Field(default=None, ge=1, description="actors an autoscaling cluster may grow to")
    num_gpus: int | None = Field(default=None, ge=0, description="per actor; default tensor_parallel_size where there are GPUs")
    num_cpus: float | None = Field(default=None, gt=0, description="per actor; default all of a CPU host")
    tensor_parallel_size: int = Field(default=1, ge=1)
    step_tokens: int = Field(default=8192, ge=16, description="most tokens in one engine step")
    call_tokens: int = Field(default=131072, ge=16, description="most tokens in one call of the engine")
    kv_cache_gib: int | None = Field(default=None, ge=1, description="CPU only: memory for keys and values; default what one step needs")
    tokens_per_second: float = Field(default=100_000, gt=0, description="simulated only")
    args: dict[str, Any] = Field(default_factory=dict, description="passed to vllm.LLM as they are")
    env: dict[str, str] = Field(default_factory=dict, description="environment of the embedding actors")


class ShardConfig(Section):
    """How large a shard may be. Never part of an identity: change it at will."""

    max_rows: int = Field(default=8192, ge=1)
    memory_mib: int = Field(default=64, ge=1, description="of full-width float32 vectors")


class RayConfig(Section):
    """Where the work runs."""

    address: str | None = Field(default=None, description="of a running cluster; default RAY_ADDRESS, else a local Ray")
    num_cpus: int | None = Field(default=None, ge=1, description="of the local Ray; default all")
    layout: Literal["auto", "fused", "split"] = Field(
        default="auto", description="fused: a shard stays in its embedding actor; split: prepare and publish are tasks of their own"
    )
    shards_in_flight: int = Field(default=2, ge=1, description="per embedding actor")
    resource_wait_seconds: float = Field(default=900, ge=0, description="how long an autoscaling cluster may take to grow")


class RunConfig(Section):
    """One run. Flags of `bulkembed run` and keys of its TOML file have these names."""

    source: str
    output: str
    model: str
    revision: str | None = None
    id_column: str = "id"
    text_columns: tuple[str, ...] = ("text",)
    template: str | None = None
    keep_columns: tuple[str, ...] = ()
    column_types: dict[str, str] = Field(default_factory=dict, description="Arrow types of JSONL columns, by name")
    dims: tuple[int, ...] | None = None
    dtype: Literal["float32", "float16"] = "float32"
    max_tokens: int | None = Field(default=None, ge=2)
    prompt: str | None = None
    limit: int | None = Field(default=None, ge=1)
    max_failures: int = Field(default=20, ge=1, description="failed shards after which the run gives up")
    engine: EngineConfig = EngineConfig()
    shards: ShardConfig = ShardConfig()
    ray: RayConfig = RayConfig()
    storage: dict[str, Any] = Field(default_factory=dict, repr=False, description="passed to fsspec, for source and output")

    @field_validator("source", "output", "model", "id_column")
    @classmethod
    def not_empty(cls, value: str) -> str:
        if not value.strip():
            raise ValueError("must not be empty")
        return value

    @field_validator("dims")
    @classmethod
    def distinct_dims(cls, dims: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if dims is not None and (not dims or min(dims) < 1 or len(set(dims)) != len(dims)):
            raise ValueError("must be distinct positive numbers, the main one first")
        return dims

    @model_validator(mode="after")
    def columns_fit(self) -> Self:
        if not self.text_columns:
            raise ValueError("text_columns: name at least one")
        if self.template is None and len(self.text_columns) > 1:
            raise ValueError('template: needed to join several text columns, such as "{title}\\n\\n{body}"')
        if self.template is not None:
            try:
                names = {name for _, name, _, _ in string.Formatter().parse(self.template) if name is not None}
            except ValueError as error:
                raise ValueError(f"template: {error}") from None
            if names != set(self.text_columns):
                raise ValueError(f"template: its fields {sorted(names)} are not the text columns {sorted(self.text_columns)}")
        reserved = {"embedding", "n_tokens", "truncated", "content_hash"}
        for name in self.keep_columns:
            if name in reserved or name.startswith("embedding_"):
                raise ValueError(f"keep_columns: {name!r} is the name of an output column")
        if len({"id", *self.keep_columns}) != 1 + len(self.keep_columns):
            raise ValueError("keep_columns: names repeat, or one is 'id', which is always kept")
        return self

    def resolve(self, model: Model) -> RunConfig:
        """This configuration with the model's own defaults filled in, and checked against it."""
        dims = self.dims or (model.width,)
        for dim in dims:
            if dim > model.width:
                raise ConfigError(f"dims: {dim} is more than the {model.width} dimensions of {model.name}")
            if model.smallest_dim is not None and dim < model.smallest_dim:
                raise ConfigError(f"dims: {dim} is below the Matryoshka range {model.smallest_dim}..{model.width} of {model.name}")
        max_tokens = self.max_tokens or model.max_tokens
        if max_tokens > model.max_tokens:
            raise ConfigError(f"max_tokens: {max_tokens} is more than the {model.max_tokens} that {model.name} takes")
        prompt = model.document_prompt if self.prompt is None else self.prompt
        return self.model_copy(update={"dims": dims, "max_tokens": max_tokens, "prompt": prompt})

    def fingerprint(self, model: Model) -> str:
        """Identity of what changes a vector or a row, of a resolved configuration. Not of sizes of
        cluster, batch or shard, nor of paths: changing those resumes the same run."""
        identity = {
            "model": model.digest,
            "pooling": model.pooling,
            "prompt": self.prompt,
            "id_column": self.id_column,
            "text_columns": self.text_columns,
            "template": self.template,
            "keep_columns": self.keep_columns,
            "column_types": self.column_types,
            "max_tokens": self.max_tokens,
            "long_documents": "truncate",
            "dims": self.dims,
            "dtype": self.dtype,
            "engine": self.engine.kind,
            "engine_dtype": self.engine.dtype,
        }
        return hashlib.sha256(orjson.dumps(identity, option=orjson.OPT_SORT_KEYS)).hexdigest()[:16]


def load(path: Path | None, overrides: dict[str, Any]) -> RunConfig:
    """The run of a TOML file (if any) with flags laid over it. Raises ConfigError naming the field."""
    values: dict[str, Any] = {}
    if path is not None:
        try:
            values = tomllib.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise ConfigError(f"--config {path}: {error.strerror}") from None
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"--config {path}: not valid TOML: {error}") from None
    try:
        return RunConfig.model_validate(merge(values, overrides))
    except ValidationError as error:
        raise ConfigError(first_line(error)) from None


def merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`, table by table."""
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def first_line(error: ValidationError) -> str:
    """One line that names the field: `shards.max_rows: Input should be ... (got 0)`."""
    problem = error.errors()[0]
    field = ".".join(str(part) for part in problem["loc"])
    kind = problem["type"]
    if kind == "missing":
        return f"{field}: is required (a flag --{field.replace('_', '-')}, or a key in the --config file)"
    if kind == "extra_forbidden":
        return f"{field}: unknown key"
    message = problem["msg"].removeprefix("Value error, ")
    # The model validator's messages name their field themselves.
    return f"{field}: {message} (got {problem['input']!r})" if field else message
