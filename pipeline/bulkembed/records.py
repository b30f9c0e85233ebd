"""Frozen values that cross process borders, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast, get_args

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:  # a configuration needs these records, and --help does not wait for Arrow
    import pyarrow as pa

Format = Literal["parquet", "jsonl"]
Pooling = Literal["last", "mean", "cls"]
Dtype = Literal["float32", "float16", "int8", "binary"]
LongDocuments = Literal["truncate", "chunk", "mean", "reject"]
# Why a shard's process was lost: it or its engine ended, memory ran out, its node went, or another shard was to blame.
Cause = Literal["engine", "memory", "node", "bystander"]
SHARD_ID = re.compile(r"(?P<object>.+)-(?P<start>\d{10})-(?P<stop>\d{10})-of-(?P<total>\d{10})")


@dataclass(frozen=True)
class VectorForm:
    """One vector column: the first `dim` components, stored as `dtype`. As text: `256:int8`."""

    dim: int
    dtype: Dtype

    def __str__(self) -> str:
        return f"{self.dim}:{self.dtype}"


def parse_forms(texts: Sequence[str]) -> tuple[VectorForm, ...]:
    """Of `256:int8`, ... Raises ValueError."""
    forms = []
    for text in texts:
        dim, _, dtype = text.strip().partition(":")
        if not dim.isdigit() or int(dim) < 1 or dtype not in get_args(Dtype):
            raise ValueError(f"{text!r} is not DIM:DTYPE with one of {', '.join(get_args(Dtype))}, as in 256:int8")
        forms.append(VectorForm(int(dim), cast(Dtype, dtype)))
    if not forms or len(set(forms)) != len(forms):
        raise ValueError("name at least one form, and each only once")
    return tuple(forms)


class ShardId(NamedTuple):
    """The name of a shard, and of its output files: the object, the row range and the object's length.

    A listing of names alone therefore tells which rows of which objects are done."""

    object_id: str
    start: int
    stop: int
    total: int  # rows of the whole object

    def __str__(self) -> str:
        return f"{self.object_id}-{self.start:010d}-{self.stop:010d}-of-{self.total:010d}"

    @classmethod
    def parse(cls, text: str) -> ShardId:
        """The inverse of `str`. Raises ValueError for any other name."""
        match = SHARD_ID.fullmatch(text)
        if match is None:
            raise ValueError(f"{text!r} is no shard id")
        return cls(match["object"], int(match["start"]), int(match["stop"]), int(match["total"]))

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def row_range(self) -> tuple[int, int]:
        return self.start, self.stop


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of one source object. The unit of work, of retry and of output."""

    object_id: str
    uri: str
    version: str
    format: Format
    start: int
    stop: int
    total: int  # rows of the whole object
    offset: int = 0  # JSONL: byte offset of a line start in the decompressed object ...
    skip: int = 0  # ... and how many rows lie between it and row `start`
    text_bytes: int = 0  # about: what it will take of an engine; 0 where nobody knows

    @property
    def rows(self) -> int:
        return self.stop - self.start

    def halves(self) -> tuple[Shard, Shard]:
        """Of a shard of two rows or more."""
        middle, half = (self.start + self.stop) // 2, self.text_bytes // 2
        second = replace(self, start=middle, skip=self.skip + middle - self.start, text_bytes=self.text_bytes - half)
        return replace(self, stop=middle, text_bytes=half), second

    @property
    def id(self) -> str:
        """The text of its ShardId, which names the output files."""
        return str(ShardId(self.object_id, self.start, self.stop, self.total))


@dataclass(frozen=True)
class Model:
    """What a model's own files say about it."""

    name: str  # as asked for: hub name or folder
    revision: str | None  # commit of the hub, None for a folder
    digest: str  # identity of weights and tokenizer: the commit, or a hash of the folder's files
    width: int  # of the full vector
    max_tokens: int  # special tokens included
    cache_values: int  # keys and values that attention keeps for one token, all layers together
    pooling: Pooling
    prompts: tuple[tuple[str, str], ...]  # name, text
    document_prompt: str
    query_prompt: str
    smallest_dim: int | None  # of a Matryoshka range up to the width
    trained_dims: tuple[int, ...]  # Matryoshka dimensions that the model's files list
    native_dtype: str  # of the weights
    end_token: str | None  # that must be the last token of every document
    file_hashes: tuple[tuple[str, str], ...]  # sha256 of settings, tokenizer and (of a folder) weights, by name below the folder

    def trained_for(self, dim: int) -> bool:
        """Whether the first `dim` components alone are a vector that the model was trained to make."""
        in_range = self.smallest_dim is not None and self.smallest_dim <= dim <= self.width
        return dim == self.width or in_range or dim in self.trained_dims


@dataclass(frozen=True)
class LoadedFiles:
    """What an embedding actor has loaded, so that the driver can compare nodes."""

    host: str
    hashes: tuple[tuple[str, str], ...]  # as in Model.file_hashes, weights included


@dataclass(frozen=True)
class Documents:
    """A shard as read. `rows` and `texts` are parallel, in source order; `rejects` holds the others."""

    rows: pa.Table  # id, kept columns
    numbers: npt.NDArray[np.int64]  # of each row in the source object
    texts: list[str]
    rejects: pa.Table  # schema.REJECTS, plus the id in the source's type
    repeated_ids: int


@dataclass(frozen=True)
class Tokens:
    """Token ids of n texts: text i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]  # n + 1
    lost: npt.NDArray[np.int64]  # n: tokens cut off the end, estimated where the text was cut before tokenizing

    @classmethod
    def join(cls, ids: Sequence[npt.NDArray[np.int32]], lost: npt.NDArray[np.int64]) -> Tokens:
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.concatenate(ids) if len(ids) else np.empty(0, np.int32)
        return cls(flat, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), lost)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def of(self, text: int) -> npt.NDArray[np.int32]:
        return self.flat[self.offsets[text] : self.offsets[text + 1]]


@dataclass(frozen=True)
class Counts:
    """Of a shard, or of many."""

    rows: int = 0  # of the source: documents + rejects
    documents: int = 0  # embedded
    vectors: int = 0  # rows of the data file
    rejects: int = 0
    repeated_ids: int = 0  # rows whose id an earlier row of the shard has
    tokens: int = 0  # that the model saw
    truncated: int = 0  # documents whose end was cut off ...
    tokens_cut: int = 0  # ... and how many tokens of them, about
    chunked: int = 0  # documents of more than one window
    retries: int = 0  # of requests to the store, in the processes that had this shard
    int8_components: int = 0  # of all int8 columns
    clipped: int = 0  # of these, outside the range that their column is quantized with

    @property
    def clipped_share(self) -> float:
        return self.clipped / max(1, self.int8_components)

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)})


@dataclass(frozen=True)
class Prepared:
    """A shard ready to embed. Output row `owners[i]` gets piece i, or the mean of all its pieces."""

    shard: Shard
    rows: pa.Table  # id, kept columns, (chunk_index, char_start, char_end,) n_tokens, truncated, content_hash
    numbers: npt.NDArray[np.int64]  # of each row's document in the source object
    tokens: Tokens  # of the pieces
    owners: npt.NDArray[np.int64]
    rejects: pa.Table
    counts: Counts
    seconds: dict[str, float]


@dataclass(frozen=True)
class Embedded:
    """A shard with its vectors: float32 of shape (rows, width), in source order."""

    prepared: Prepared
    vectors: npt.NDArray[np.float32]
    engine: str  # and its version
    started: float  # unix seconds, of the first and the last engine call
    finished: float


@dataclass(frozen=True)
class Sampled:
    """What a sample of the source shows of its vectors."""

    seen: int = 0  # rows looked at, rejects included
    vectors: int = 0  # made of them
    ranges: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # of int8 columns, by name: (2, dim); none without vectors


@dataclass(frozen=True)
class Receipt:
    """A published shard: done marker, metrics and provenance in one."""

    shard: str
    source: str
    counts: Counts
    data_bytes: int
    data_sha256: str  # of the data file
    seconds: dict[str, float]
    embed_started: float
    embed_finished: float
    provenance: dict[str, str] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Flat: the counts stand beside the rest."""
        values = asdict(self)
        counts: dict[str, Any] = values.pop("counts")
        return values | counts

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Receipt:
        counts = Counts(**{each.name: values[each.name] for each in fields(Counts)})
        return cls(counts=counts, **{each.name: values[each.name] for each in fields(cls) if each.name != "counts"})


@dataclass(frozen=True)
class Failure:
    """A shard or source object that could not be done, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class LostAttempt:
    """An attempt at a shard whose process or engine was lost; another one follows."""

    where: str
    reason: str
    cause: Cause
