"""A configuration as it was resolved against its model: what decides every vector, and what decides every row.

A Recipe has no optional field. The fingerprint of a run, the provenance in footers, receipts and snapshots, and the job that a
dataset was made by are views of it: a key that changes a vector or a row is listed here, and nowhere else.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Annotated, Any, Literal, TypeVar

import orjson
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from bulkembed.config.sections import EngineConfig
from bulkembed.records import LongDocuments, Pooling, VectorForm, parse_forms

EngineDtype = Literal["bfloat16", "float16", "float32"]
Half = TypeVar("Half", "VectorKey", "RowSchema")
INT8_RANGES = "int8_ranges"  # how the names of all texts about int8 ranges begin
# How the text of a field in a footer becomes its value. Fields of str and int need no more than their type.
Names = Annotated[tuple[str, ...], BeforeValidator(orjson.loads)]
TextPairs = Annotated[tuple[tuple[str, str], ...], BeforeValidator(orjson.loads)]
Forms = Annotated[tuple[VectorForm, ...], BeforeValidator(lambda text: parse_forms(text.split(",")))]


@dataclass(frozen=True)
class VectorKey:
    """Everything that changes a full-width vector. Two runs with equal keys make the same vector of the same document."""

    model_digest: str
    pooling: Pooling
    prompt: str
    text_columns: Names  # in the order in which the template has them
    template: str  # canonical: see template.canonical_template
    max_tokens: int
    long_documents: LongDocuments
    chunk_tokens: int  # limit of what the engine gets as one sequence; without windows it is max_tokens
    chunk_overlap: int  # 0 without windows
    engine_kind: Literal["vllm", "simulated"]
    engine_dtype: EngineDtype
    engine_args: str  # JSON of the arguments that can change a number

    @property
    def digest(self) -> str:
        """Name of the key, in footers and run records."""
        return digest_of(texts_of(self), 32)

    def engine(self, kind: str) -> EngineConfig:
        """Settings of an engine that makes these vectors; of another `kind`, without the arguments, which are the engine's own."""
        args = orjson.loads(self.engine_args) if kind == self.engine_kind else {}
        return EngineConfig.model_validate({"kind": kind, "dtype": self.engine_dtype, "args": args})


@dataclass(frozen=True)
class RowSchema:
    """Everything else that changes a row of the output: its columns, and the forms in which a vector is stored."""

    id_column: str
    keep_columns: Names
    column_types: TextPairs  # column and declared Arrow type, sorted
    vectors: Forms  # the main one first
    int8_ranges: TextPairs  # name and text in footers, sorted; empty without int8 columns, and before they are measured

    @property
    def carried_columns(self) -> tuple[str, ...]:
        """Columns of the source whose values the output has. The id may also be kept under its own name."""
        return tuple(dict.fromkeys((self.id_column, *self.keep_columns)))

    @property
    def declared_types(self) -> dict[str, str]:
        return dict(self.column_types)

    @property
    def has_int8(self) -> bool:
        return any(form.dtype == "int8" for form in self.vectors)


@dataclass(frozen=True)
class Recipe:
    """What was resolved. A vector may be reused where the vector keys are equal, a whole row where the recipes are."""

    vector_key: VectorKey
    row_schema: RowSchema

    @property
    def fingerprint(self) -> str:
        """Identity of a run's output. Sizes of cluster, batch and shard are no part of it, nor are places: another one resumes the run.

        Without its int8 ranges, a recipe with int8 columns has the key that these ranges are kept under."""
        return digest_of(self.texts | dict(self.row_schema.int8_ranges), 16)

    @property
    def source_columns(self) -> tuple[str, ...]:
        """All columns of the source that a run reads."""
        rows = self.row_schema
        return tuple(dict.fromkeys((rows.id_column, *self.vector_key.text_columns, *rows.keep_columns)))

    @property
    def texts(self) -> dict[str, str]:
        """Every field and the vector key's digest, by name, as footers have them; without the int8 ranges, which are long."""
        rows = texts_of(self.row_schema)
        del rows[INT8_RANGES]
        return {"vector_key": self.vector_key.digest} | texts_of(self.vector_key) | rows

    @classmethod
    def from_texts(cls, texts: Mapping[str, str]) -> Recipe:
        """The recipe whose `texts` and int8 ranges these are, among others. Raises ValueError where one is missing or of another shape."""
        ranges = sorted((name, text) for name, text in texts.items() if name.startswith(INT8_RANGES))
        known = dict(texts) | {INT8_RANGES: orjson.dumps(ranges).decode()}
        try:
            return cls(half(VectorKey, known), half(RowSchema, known))
        except (KeyError, ValidationError) as error:
            raise ValueError(f"not a recipe of this version: {error}") from error

    def can_reuse_vectors(self, other: Recipe) -> bool:
        """Whether full-width vectors that `other` made are those that this recipe makes."""
        return self.vector_key == other.vector_key

    def with_int8_ranges(self, texts: Mapping[str, str]) -> Recipe:
        return replace(self, row_schema=replace(self.row_schema, int8_ranges=tuple(sorted(texts.items()))))

    def with_engine(self, engine: EngineConfig) -> Recipe:
        """The same on another engine. An engine dtype of auto leaves the dtype as it is."""
        dtype = self.vector_key.engine_dtype if engine.dtype == "auto" else engine.dtype
        return replace(self, vector_key=replace(self.vector_key, **engine_fields(engine, dtype)))

    def in_dtype(self, dtype: EngineDtype) -> Recipe:
        """The same with a model in `dtype`."""
        return replace(self, vector_key=replace(self.vector_key, engine_dtype=dtype))


def engine_fields(engine: EngineConfig, dtype: EngineDtype) -> dict[str, Any]:
    """The part of a vector key that an engine decides. `dtype` is what its dtype stands for on the hosts of the run."""
    return {
        "engine_kind": engine.kind,
        "engine_dtype": dtype,
        "engine_args": orjson.dumps(engine.numeric_args, option=orjson.OPT_SORT_KEYS).decode(),
    }


def half(kind: type[Half], texts: Mapping[str, str]) -> Half:
    return TypeAdapter(kind).validate_python({field.name: texts[field.name] for field in fields(kind)})


def texts_of(half: VectorKey | RowSchema) -> dict[str, str]:
    return {field.name: text_of(getattr(half, field.name)) for field in fields(half)}


def text_of(value: Any) -> str:
    """A text is itself, forms are those that a configuration takes, all else is JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and value and isinstance(value[0], VectorForm):
        return ",".join(map(str, value))
    return orjson.dumps(value).decode()


def digest_of(texts: Mapping[str, str], length: int) -> str:
    return hashlib.sha256(orjson.dumps(dict(texts), option=orjson.OPT_SORT_KEYS)).hexdigest()[:length]
