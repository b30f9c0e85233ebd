"""What a configuration was resolved to with its model's files: everything that decides a vector, and everything that decides a row.

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
from bulkembed.forms import column_to_cut, vector_columns
from bulkembed.records import LongDocuments, Pooling, VectorForm, parse_forms

EngineDtype = Literal["bfloat16", "float16", "float32"]
Half = TypeVar("Half", "VectorKey", "RowSchema")
EVERY_COLUMN = "*"  # in keep_columns
OUTPUT_COLUMNS = {"embedding", "n_tokens", "truncated", "content_hash", "chunk_index", "char_start", "char_end", "document_hash"}
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
        """Settings of an engine that makes these vectors. An engine of another `kind` does not get the arguments."""
        args = orjson.loads(self.engine_args) if kind == self.engine_kind else {}
        return EngineConfig.model_validate({"kind": kind, "dtype": self.engine_dtype, "args": args})


@dataclass(frozen=True)
class RowSchema:
    """Everything else that changes a row of the output: its columns, and the forms in which a vector is stored."""

    id_column: str
    keep_columns: Names
    keep: Literal["named", "all"]  # all: the kept columns are those of the source when the line began
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

    def ranges_of(self, column: str) -> str | None:
        """The text of an int8 column's ranges; None before they are measured."""
        return dict(self.int8_ranges).get(f"{INT8_RANGES}.{column}")

    @property
    def has_int8(self) -> bool:
        return any(form.dtype == "int8" for form in self.vectors)


@dataclass(frozen=True)
class Recipe:
    """What a configuration was resolved to. Equal vector keys make equal vectors, and equal recipes make equal rows."""

    vector_key: VectorKey
    row_schema: RowSchema

    @property
    def fingerprint(self) -> str:
        """Identity of a run's output. Places and sizes (cluster, batch, shard) are no part of it: a run resumes with others.

        Before int8 ranges are measured, a recipe with int8 columns lacks them. Its fingerprint is then the key of these ranges."""
        return digest_of(self.texts | dict(self.row_schema.int8_ranges), 16)

    @property
    def line(self) -> str:
        """Identity of all snapshots of this recipe: the fingerprint without int8 ranges, which are measured anew as rows come."""
        return digest_of(self.texts, 16)

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
        """The inverse of `texts`, with int8 ranges. Other names are ignored. Raises ValueError where a text is missing or malformed."""
        ranges = sorted((name, text) for name, text in texts.items() if name.startswith(INT8_RANGES))
        known = dict(texts) | {INT8_RANGES: orjson.dumps(ranges).decode()}
        try:
            return cls(half(VectorKey, known), half(RowSchema, known))
        except (KeyError, ValidationError) as error:
            raise ValueError(f"not a recipe of this version: {error}") from error

    def can_reuse_vectors(self, other: Recipe) -> bool:
        """Whether full-width vectors that `other` made are those that this recipe makes."""
        return self.vector_key == other.vector_key

    def derivable_from(self, other: Recipe, derive: bool) -> bool:
        """Whether every row of this recipe can be had from the rows of `other` without the model. `derive`: see RunConfig."""
        known = forms_from(other, self, derive) if self.can_reuse_vectors(other) else {}
        return known.keys() == vector_columns(self.row_schema.vectors).keys()

    def with_int8_ranges(self, texts: Mapping[str, str]) -> Recipe:
        return replace(self, row_schema=replace(self.row_schema, int8_ranges=tuple(sorted(texts.items()))))

    def with_engine(self, engine: EngineConfig) -> Recipe:
        """The recipe with another engine. The engine dtype `auto` keeps the dtype of this recipe."""
        dtype = self.vector_key.engine_dtype if engine.dtype == "auto" else engine.dtype
        return replace(self, vector_key=replace(self.vector_key, **engine_fields(engine, dtype)))

    def in_dtype(self, dtype: EngineDtype) -> Recipe:
        """The recipe with the model in another dtype."""
        return replace(self, vector_key=replace(self.vector_key, engine_dtype=dtype))


def is_output_column(name: str) -> bool:
    """Whether a column of the output has this name, or may have it."""
    return name in OUTPUT_COLUMNS or name.startswith("embedding_")


def forms_from(old: Recipe, new: Recipe, derive: bool) -> dict[str, str]:
    """For each vector column of `new` that can be had without the model, the column of `old` that gives it.

    A column of the same form gives its bits. An int8 column does so only under the same ranges. With `derive`, a stored float
    column of at least as many dimensions is cut for the others."""
    stored = vector_columns(old.row_schema.vectors)
    names = {form: name for name, form in stored.items()}
    sources: dict[str, str | None] = {}
    for name, form in vector_columns(new.row_schema.vectors).items():
        same = names.get(form)
        if same is not None and (form.dtype != "int8" or old.row_schema.ranges_of(same) == new.row_schema.ranges_of(name)):
            sources[name] = same
        else:
            sources[name] = column_to_cut(form, stored) if derive else None
    return {name: source for name, source in sources.items() if source is not None}


def engine_fields(engine: EngineConfig, dtype: EngineDtype) -> dict[str, Any]:
    """The fields of a vector key that an engine decides. `dtype`: the resolved dtype, where the engine's own may be `auto`."""
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
    """The text of a value: a string unchanged, vector forms as `256:int8,1024:binary`, any other value as JSON."""
    if isinstance(value, str):
        return value
    if isinstance(value, tuple) and value and isinstance(value[0], VectorForm):
        return ",".join(map(str, value))
    return orjson.dumps(value).decode()


def digest_of(texts: Mapping[str, str], length: int) -> str:
    return hashlib.sha256(orjson.dumps(dict(texts), option=orjson.OPT_SORT_KEYS)).hexdigest()[:length]
