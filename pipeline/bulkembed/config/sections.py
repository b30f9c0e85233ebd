"""The tables of a configuration: `[engine]`, `[shards]` and `[ray]`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bulkembed.config import engine_args
from bulkembed.config.keys import VECTOR_KEY, DefaultText, without_none


class Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)  # it may be a secret of [storage]

    @field_validator("*", mode="before")
    @classmethod
    def no_boolean_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        """pydantic takes `true` for 1."""
        kind = without_none(cls.model_fields[str(info.field_name)].annotation)
        if isinstance(value, bool) and kind in (int, float):
            raise PydanticCustomError("int_type", "expected a number")
        return value


SIMULATED_SPEED = 100_000.0  # tokens per second


class EngineConfig(Section):
    """How vectors are made. Only `kind`, `dtype` and `numeric_args` change them."""

    kind: Annotated[Literal["vllm", "simulated"], VECTOR_KEY] = Field(
        default="vllm",
        description="Engine that makes the vectors. The vectors of the simulated one mean nothing: it is for tests.",
    )
    dtype: Annotated[Literal["auto", "bfloat16", "float16", "float32"], VECTOR_KEY] = Field(
        default="auto",
        description="Number format of the model's weights and activations. auto: bfloat16; float32 on CPUs without native bfloat16 "
        "instructions. A run that has begun keeps its own.",
    )
    replicas: Annotated[int | None, DefaultText("as many as the GPUs hold, or one per CPU host")] = Field(
        default=None, ge=1, examples=[8], description="Number of embedding actors."
    )
    max_replicas: Annotated[int | None, DefaultText("replicas: the cluster need not grow")] = Field(
        default=None, ge=1, examples=[64], description="Number of embedding actors up to which an autoscaling cluster may grow."
    )
    num_gpus: Annotated[float | None, DefaultText("tensor_parallel_size where there are GPUs or the cluster adds some, else 0")] = Field(
        default=None, ge=0, examples=[0.5], description="GPUs of one embedding actor. With 0.5, two actors share a GPU."
    )
    num_cpus: Annotated[float | None, DefaultText("an even share of CPU hosts; one core or less beside a GPU")] = Field(
        default=None, gt=0, examples=[4], description="CPU cores of one embedding actor."
    )
    tensor_parallel_size: int = Field(default=1, ge=1, description="GPUs over which one actor splits the model.")
    step_tokens: int = Field(default=8192, ge=16, description="Maximum tokens of one engine step, all of its documents together.")
    call_tokens: int = Field(default=131072, ge=16, description="Maximum tokens of one call of the engine, which makes steps of them.")
    kv_cache_gib: Annotated[int | None, DefaultText("what the longest step needs")] = Field(
        default=None, ge=1, examples=[4], description="Memory of the KV cache in GiB; on CPU hosts only."
    )
    stall_seconds: float = Field(
        default=900, gt=0, description="Seconds that a call may take before the engine's process is ended and replaced."
    )
    tokens_per_second: float = Field(default=SIMULATED_SPEED, gt=0, description="Speed of the simulated engine in tokens per second.")
    args: Annotated[dict[str, Any], DefaultText("none"), VECTOR_KEY] = Field(
        default_factory=dict,
        repr=False,
        examples=[{"quantization": "fp8_per_channel"}],
        description="Arguments passed to vllm.LLM. Those that are not known to change speed alone make another dataset.",
    )
    env: Annotated[dict[str, str], DefaultText("none")] = Field(
        default_factory=dict, repr=False, examples=[{"NAME": "value"}], description="Environment variables of the embedding actors."
    )

    @property
    def numeric_args(self) -> dict[str, Any]:
        """The arguments of `args` that can change a vector. Those of the simulated engine are faults, which change no published one."""
        return {} if self.kind == "simulated" else engine_args.numeric_args(self.args)

    @model_validator(mode="after")
    def not_own_args(self) -> Self:
        if self.kind == "vllm" and (problem := engine_args.problem_with(self.args)):
            raise ValueError(f"args: {problem}")
        return self

    @model_validator(mode="after")
    def each_is_heeded(self) -> Self:
        if self.kind == "vllm" and self.tokens_per_second != SIMULATED_SPEED:
            raise ValueError("tokens_per_second: is the speed of the simulated engine, and does nothing with kind = vllm; leave it out")
        if self.max_replicas is not None and self.max_replicas < (self.replicas or 1):
            raise ValueError("max_replicas: must be at least replicas")
        return self

    @field_validator("num_gpus")
    @classmethod
    def whole_gpus_or_a_share(cls, value: float | None) -> float | None:
        if value is not None and not (value.is_integer() or 1 / value == round(1 / value)):
            raise ValueError("must be whole, or 0.5, 0.25 or the like for a share of one GPU")
        return value


class ShardConfig(Section):
    """How large a shard may be. A shard ends at whichever limit it meets first; no limit is part of an identity."""

    max_rows: int = Field(default=8192, ge=1, description="Maximum rows of a shard. A run resumes with any other sizes of shards.")
    memory_mib: int = Field(default=64, ge=1, description="Maximum memory of a shard's full-width float32 vectors, in MiB.")
    text_mib: int = Field(default=32, ge=1, description="Maximum text of a shard in MiB, about: long documents make shards of fewer rows.")


class RayConfig(Section):
    """Where the work runs."""

    address: Annotated[str | None, DefaultText("RAY_ADDRESS, else a Ray of this host's own")] = Field(
        default=None, examples=["auto"], description="Address of the Ray cluster to join. With local, a run always starts a Ray of its own."
    )
    num_cpus: Annotated[int | None, DefaultText("all")] = Field(
        default=None, ge=1, examples=[8], description="CPU cores of a Ray that the run starts."
    )
    layout: Literal["auto", "fused", "split"] = Field(
        default="auto",
        description="Where a shard is prepared and published. fused: in its embedding actor; split: in tasks of their own; "
        "auto: fused on CPU hosts, split on GPU hosts.",
    )
    shards_in_flight: int = Field(default=2, ge=1, description="Shards that each embedding actor has at once.")
    resource_wait_seconds: float = Field(
        default=900, ge=0, description="Seconds that an autoscaling cluster may take to grow to the first embedding actor."
    )
