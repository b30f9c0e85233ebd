"""The configuration of a run: validated, frozen, unknown keys refused."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from bulkembed.config.credentials import REFUSED, shows_credentials
from bulkembed.config.keys import ROW_SCHEMA, VECTOR_KEY, DefaultText
from bulkembed.config.recipe import is_output_column
from bulkembed.config.sections import EngineConfig, RayConfig, Section, ShardConfig
from bulkembed.config.source_places import absolute_source, duplicates, places_of, places_text
from bulkembed.config.template import check_template
from bulkembed.records import Dtype, LongDocuments, VectorForm, parse_forms
from bulkembed.shards import FormatName
from bulkembed.storage.local_paths import absolute_model, absolute_place

MAX_DELETES = 0.1  # share of the documents that may leave a dataset without a word from a person


class RunConfig(Section):
    """What a user asks of one run. Options of `bulkembed run` and keys of its TOML file have these names."""

    source: Annotated[str | tuple[str, ...], AfterValidator(absolute_source)] = Field(
        examples=["s3://corpus/docs"],
        description="Location of the documents: one object, a prefix, a glob, or the folder of a Delta or Iceberg table.",
    )
    exclude: tuple[str, ...] = Field(
        default=(),
        examples=[["tmp", "*.bak.jsonl", "raw/**/old"]],
        description="Glob of names in the source that are not read: names at any depth, or with a slash paths below the source.",
    )
    format: Annotated[FormatName | None, DefaultText("by name, else by first bytes")] = Field(
        default=None, examples=["jsonl"], description="Format of all objects of the source, whatever their names. text: each is a document."
    )
    output: Annotated[str, AfterValidator(absolute_place)] = Field(
        examples=["s3://corpus/vectors"], description="Location of the dataset: a URI of its own, not inside the source."
    )
    model: Annotated[str, AfterValidator(absolute_model), VECTOR_KEY] = Field(
        examples=["Qwen/Qwen3-Embedding-0.6B"],
        description="Model that makes the vectors: a hub name, or a folder with safetensors and sentence-transformers files.",
    )
    revision: Annotated[str | None, DefaultText("the hub's main branch"), VECTOR_KEY] = Field(
        default=None, examples=["main"], description="Commit, tag or branch of a hub model. Only other files make another dataset."
    )
    id_column: Annotated[str, ROW_SCHEMA] = Field(
        default="id",
        description="Column that identifies a document, of any scalar type. row: object and row number, where there is no such column.",
    )
    text_columns: Annotated[tuple[str, ...], VECTOR_KEY] = Field(
        default=("text",),
        examples=[["title", "body"]],
        description="Columns to embed, or fields within them, as doc.body. Several need a template.",
    )
    template: Annotated[str | None, DefaultText("the text column alone"), VECTOR_KEY] = Field(
        default=None, examples=["{title}\n\n{body}"], description=r"Text that joins the text columns, as '{title}\n\n{body}'."
    )
    keep_columns: Annotated[tuple[str, ...], ROW_SCHEMA] = Field(
        default=(),
        examples=[["url"]],
        description="Columns to copy into the output, or fields within them. * stands for all but the text columns.",
    )
    column_types: Annotated[dict[str, str], DefaultText("types that hold all values"), ROW_SCHEMA] = Field(
        default_factory=dict, examples=[{"id": "string"}], description="Arrow types of the id and kept columns, by the column's name."
    )
    dims: Annotated[tuple[int, ...] | None, DefaultText("the model's full width"), ROW_SCHEMA] = Field(
        default=None, examples=[[1024, 256]], description="Matryoshka dimensions of the stored vectors, the main one first, as 1024,256."
    )
    dtype: Annotated[Dtype, ROW_SCHEMA] = Field(default="float32", description="Number format of the stored vectors.")
    vectors: Annotated[tuple[VectorForm, ...] | None, DefaultText("by dims and dtype"), ROW_SCHEMA] = Field(
        default=None,
        examples=[["2560:float16", "256:int8", "1024:binary"]],
        description="Several forms of stored vectors instead of dims and dtype, the main one first, as 2560:float16,256:int8,1024:binary.",
    )
    allow_untrained_dims: bool = Field(default=False, description="Accept dimensions that the model was not trained for.")
    derive: bool = Field(
        default=False,
        description="Cut vectors of fewer dimensions from stored float vectors instead of embedding them. Cut vectors differ from "
        "embedded ones by rounding.",
    )
    max_tokens: Annotated[int | None, DefaultText("the model's limit"), VECTOR_KEY] = Field(
        default=None, ge=2, examples=[8192], description="Token limit of a document; long_documents decides what happens above it."
    )
    prompt: Annotated[str | None, DefaultText("the model's own document prompt"), VECTOR_KEY] = Field(
        default=None, examples=["passage: "], description="Text put before every document."
    )
    prompt_name: Annotated[str | None, DefaultText("none"), VECTOR_KEY] = Field(
        default=None, examples=["query"], description="Name of one of the model's own prompts, which is put before every document."
    )
    instruction: Annotated[str | None, DefaultText("none"), VECTOR_KEY] = Field(
        default=None,
        examples=["Given a question, find its answer"],
        description=r"Task of an instruction-tuned model: puts 'Instruct: TASK\nQuery:' before every document.",
    )
    long_documents: Annotated[LongDocuments, VECTOR_KEY] = Field(
        default="truncate",
        description="What happens to a document above its token limit. truncate: its beginning is embedded; chunk: it is cut into "
        "windows, each a row; mean: the mean of its windows' vectors is one row; reject: it is rejected.",
    )
    chunk_tokens: Annotated[int | None, DefaultText("max_tokens"), VECTOR_KEY] = Field(
        default=None, ge=16, examples=[512], description="Maximum tokens of a window, with long_documents chunk or mean."
    )
    chunk_overlap: Annotated[int, VECTOR_KEY] = Field(
        default=0, ge=0, examples=[64], description="Tokens that a window repeats from the window before it."
    )
    limit: Annotated[int | None, DefaultText("all rows")] = Field(
        default=None, ge=1, examples=[1000], description="Number of rows to embed: the first ones of the source."
    )
    max_failures: int = Field(default=20, ge=1, description="Number of failed shards after which the run gives up.")
    max_rejects: Annotated[float | None, DefaultText("no limit")] = Field(
        default=None,
        ge=0,
        examples=[0.05],
        description="Rejected rows above which the run gives up: a count, or below 1 a share of the rows.",
    )
    max_deletes: float = Field(
        default=MAX_DELETES,
        ge=0,
        description="Rows of the newest snapshot that a run may drop: a count, or below 1 a share. Any share lets 10 rows go.",
    )
    allow_deletes: Annotated[int | None, DefaultText("by max_deletes")] = Field(
        default=None, ge=0, examples=[500], description="Number of rows that this run may drop from the dataset, whatever the cause."
    )
    require: tuple[str, ...] = Field(
        default=(),
        examples=[["_SUCCESS"]],
        description="Names that must stand in the source, such as the marker that its writer leaves last. Else the run is held back.",
    )
    skip_unreadable: bool = Field(
        default=False, description="Publish without objects that cannot be read. The snapshot names them, and their rows leave the dataset."
    )
    dedupe: bool = Field(default=True, description="Embed documents of equal text once, and give each of them the same vector.")
    run_key: Annotated[str | None, DefaultText("none")] = Field(
        default=None,
        min_length=1,
        examples=["2026-11-26"],
        description="Name of this run, such as its logical date. A further run of the same name does nothing.",
    )
    grace_seconds: float = Field(
        default=25, ge=0, description="Seconds that shards in flight have to be published after SIGTERM or SIGINT."
    )
    if_running: Literal["skip", "wait", "fail"] = Field(
        default="skip",
        description="What a run does while another one writes the same dataset. skip: it says so and ends with exit code 0; "
        "wait: it waits; fail: it ends with exit code 1.",
    )
    lease_seconds: float = Field(
        default=60, ge=1, description="Seconds without a sign of life after which a run is taken for dead, and the next one goes on."
    )
    engine: EngineConfig = Field(default=EngineConfig(), description="How vectors are made.")
    shards: ShardConfig = Field(default=ShardConfig(), description="How large a shard may be. None of its keys changes the dataset.")
    ray: RayConfig = Field(default=RayConfig(), description="Where the work runs. None of its keys changes the dataset.")
    storage: Annotated[dict[str, Any], DefaultText("none")] = Field(
        default_factory=dict,
        repr=False,
        examples=[{"endpoint_url": "https://minio.internal:9000"}],
        description="Options for fsspec's file systems, which may hold credentials. Those in [storage.source] and [storage.output] are for "
        "one side, and override them key by key. Local files take none.",
    )

    @property
    def sources(self) -> tuple[str, ...]:
        """The places of the source."""
        return places_of(self.source)

    @property
    def source_text(self) -> str:
        """The source as a message names it."""
        return places_text(self.sources)

    @field_validator("source", mode="before")
    @classmethod
    def one_place_or_several(cls, value: Any) -> Any:
        """A wrong type is told here. pydantic would tell it of each type that the key takes."""
        if isinstance(value, str) or (isinstance(value, list | tuple) and value and all(isinstance(place, str) for place in value)):
            return value
        raise PydanticCustomError("tuple_type", "expected a string or a list of strings")

    @field_validator("source", "output", "model", "revision", "id_column", "exclude", "require", "run_key")
    @classmethod
    def not_empty(cls, value: Any) -> Any:
        if value is not None and not all(text.strip() for text in places_of(value)):
            raise ValueError("must not be empty")
        return value

    @field_validator("exclude")
    @classmethod
    def names_something(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        if not all(pattern.strip("./") for pattern in patterns):
            raise ValueError("must name something below the source")
        return patterns

    @field_validator("source", "exclude", "require")
    @classmethod
    def named_once(cls, value: Any) -> Any:
        for name in duplicates(places_of(value)):
            raise ValueError(f"{name!r} is named twice")
        return value

    @field_validator(
        *("source", "exclude", "output", "model", "id_column", "text_columns", "template"),
        *("keep_columns", "prompt", "prompt_name", "instruction"),
    )
    @classmethod
    def valid_unicode(cls, value: Any) -> Any:
        """A shell passes bytes that are not UTF-8 as lone surrogates, which no footer can hold."""
        try:
            "".join(value or ()).encode()
        except UnicodeEncodeError:
            raise PydanticCustomError("not_utf8", "holds bytes that are not UTF-8") from None
        return value

    @field_validator("source", "output", "model")
    @classmethod
    def no_credentials(cls, value: Any) -> Any:
        """Logs, receipts and reports show these places."""
        if any(map(shows_credentials, places_of(value))):
            raise PydanticCustomError("credentials", REFUSED)
        return value

    @field_validator("output")
    @classmethod
    def one_place(cls, value: str) -> str:
        if value.splitlines() != [value]:
            raise ValueError("must not hold a line break: current.txt has one path a line")
        if "//" in value.partition("://")[2]:
            raise ValueError("must not hold // after its scheme: some calls of a store take that for /, others do not")
        if "://" in value and {".", ".."} & set(value.split("/")):
            raise ValueError("must not hold . or .. as the name of a folder: only some clients of a store take them as they are")
        return value

    @field_validator("column_types", mode="before")
    @classmethod
    def parse_column_types(cls, value: Any) -> Any:
        """TOML reads `meta.lang = "string"` as a table in a table: here it is the field `lang` of the column `meta`."""
        return flat(value) if isinstance(value, dict) else value

    @field_validator("dims", mode="before")
    @classmethod
    def parse_dims(cls, value: Any) -> Any:
        """The list of `1024,256`, as an option gives it. Other values stay, and the type refuses wrong ones."""
        parts = value.strip("[] ").split(",") if isinstance(value, str) else []
        return [int(part) for part in parts] if parts and all(part.strip().isdecimal() for part in parts) else value

    @field_validator("dims")
    @classmethod
    def distinct_dims(cls, dims: tuple[int, ...] | None) -> tuple[int, ...] | None:
        if dims is not None and (not dims or min(dims) < 1 or len(set(dims)) != len(dims)):
            raise ValueError("must be distinct positive numbers, the main one first")
        return dims

    @field_validator("vectors", mode="before")
    @classmethod
    def parse_vectors(cls, value: Any) -> Any:
        """The forms of `256:int8,1024:binary`, or of a list of such texts."""
        if value is None or (isinstance(value, tuple) and all(isinstance(form, VectorForm) for form in value)):
            return value
        texts = value.split(",") if isinstance(value, str) else value
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) for text in texts):
            raise ValueError("expected a list of DIM:DTYPE, such as 2560:float16,256:int8")
        return parse_forms(texts)

    @model_validator(mode="after")
    def trial_fits(self) -> Self:
        for name in ("allow_deletes", "run_key"):
            if self.limit is not None and getattr(self, name) is not None:
                raise ValueError(
                    f"{name}: does nothing with limit, which makes a trial: it takes the place of no whole dataset; leave one out"
                )
        return self

    @model_validator(mode="after")
    def vectors_fit(self) -> Self:
        if self.vectors is not None and (self.dims is not None or "dtype" in self.model_fields_set):
            raise ValueError("vectors: cannot be given together with dims or dtype, which it replaces")
        if sum(value is not None for value in (self.prompt, self.prompt_name, self.instruction)) > 1:
            raise ValueError("prompt: give only one of prompt, prompt_name and instruction")
        if self.long_documents not in ("chunk", "mean") and (self.chunk_tokens is not None or self.chunk_overlap):
            raise ValueError("chunk_tokens: chunk_tokens and chunk_overlap need long_documents = chunk or mean")
        if self.chunk_tokens is not None and self.chunk_overlap * 2 > self.chunk_tokens:
            raise ValueError("chunk_overlap: must be at most half of chunk_tokens")
        return self

    @model_validator(mode="after")
    def columns_fit(self) -> Self:
        if not self.text_columns:
            raise ValueError("text_columns: name at least one")
        for name in duplicates(self.text_columns):
            raise ValueError(f"text_columns: {name!r} is named twice")
        if self.template is None and len(self.text_columns) > 1:
            raise ValueError('template: needed to join several text columns, such as "{title}\\n\\n{body}"')
        if self.template is not None:
            check_template(self.template, self.text_columns)
        for name in self.keep_columns:
            if is_output_column(name):
                raise ValueError(f"keep_columns: {name!r} is the name of an output column")
        for name in duplicates(self.keep_columns):
            raise ValueError(f"keep_columns: {name!r} is named twice")
        if "id" in self.keep_columns:
            clash = "is the id column, which is always kept"
            if self.id_column != "id":
                clash = f"would be the second column of that name: the output's 'id' holds {self.id_column!r}, the id column"
            raise ValueError(f"keep_columns: 'id' {clash}")
        return self


def flat(tables: dict[str, Any], before: str = "") -> dict[str, Any]:
    """The values of nested tables, by their keys joined with dots."""
    found: dict[str, Any] = {}
    for key, value in tables.items():
        found |= flat(value, f"{before}{key}.") if isinstance(value, dict) else {f"{before}{key}": value}
    return found
