"""The tables of a configuration: `[engine]`, `[shards]` and `[ray]`."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from bulkembed.config import engine_args


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EngineConfig(Section):
    """How vectors are made. Only `kind`, `dtype` and `numeric_args` change them."""

    kind: Literal["vllm", "simulated"] = "vllm"
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = Field(
        default="auto", description="auto: bfloat16, on a CPU host without a unit for it float32; a run that was begun keeps its own"
    )
    replicas: int | None = Field(default=None, ge=1, description="embedding actors; default one per GPU, or one per CPU host")
    max_replicas: int | None = Field(default=None, ge=1, description="actors an autoscaling cluster may grow to")
    num_gpus: float | None = Field(
        default=None, ge=0, description="per actor; 0.5: two share a GPU; default tensor_parallel_size where there are GPUs"
    )
    num_cpus: float | None = Field(default=None, gt=0, description="per actor; default all of a CPU host")
    tensor_parallel_size: int = Field(default=1, ge=1)
    step_tokens: int = Field(default=8192, ge=16, description="most tokens in one engine step")
    call_tokens: int = Field(default=131072, ge=16, description="most tokens in one call of the engine")
    kv_cache_gib: int | None = Field(default=None, ge=1, description="CPU only: memory for keys and values; default what one step needs")
    stall_seconds: float = Field(default=900, gt=0, description="without a vector, after which an engine's process is ended and replaced")
    tokens_per_second: float = Field(default=100_000, gt=0, description="simulated only")
    args: dict[str, Any] = Field(
        default_factory=dict,
        repr=False,
        description="passed to vllm.LLM; what is not known to change speed alone is part of the fingerprint; simulated: see Faults",
    )
    env: dict[str, str] = Field(default_factory=dict, repr=False, description="environment of the embedding actors")

    @property
    def numeric_args(self) -> dict[str, Any]:
        """The arguments of `args` that can change a vector. A simulated engine's are faults: they change none that is published."""
        return {} if self.kind == "simulated" else engine_args.numeric(self.args)

    @model_validator(mode="after")
    def not_own_args(self) -> Self:
        if self.kind == "vllm" and (problem := engine_args.refusal(self.args)):
            raise ValueError(f"args: {problem}")
        return self

    @field_validator("num_gpus")
    @classmethod
    def whole_gpus_or_a_share(cls, value: float | None) -> float | None:
        if value is not None and not (value.is_integer() or 1 / value == round(1 / value)):
            raise ValueError("must be whole, or 0.5, 0.25 or the like for a share of one GPU")
        return value


class ShardConfig(Section):
    """How large a shard may be. Never part of an identity: change it at will."""

    max_rows: int = Field(default=8192, ge=1)
    memory_mib: int = Field(default=64, ge=1, description="of full-width float32 vectors")
    text_mib: int = Field(default=32, ge=1, description="of text, about; long documents make shards of fewer rows")


class RayConfig(Section):
    """Where the work runs."""

    address: str | None = Field(
        default=None, description="of a running cluster; default RAY_ADDRESS, else a local Ray; local: that in any case"
    )
    num_cpus: int | None = Field(default=None, ge=1, description="of the local Ray; default all")
    layout: Literal["auto", "fused", "split"] = Field(
        default="auto", description="fused: a shard stays in its embedding actor; split: prepare and publish are tasks of their own"
    )
    shards_in_flight: int = Field(default=2, ge=1, description="per embedding actor")
    resource_wait_seconds: float = Field(default=900, ge=0, description="how long an autoscaling cluster may take to grow")
