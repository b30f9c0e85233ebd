"""Frozen values that cross rooms and processes, and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal, cast, get_args

import numpy as np
import numpy.typing as npt

from bulkembed.shards import Shard

if TYPE_CHECKING:  # a configuration needs these records, and --help does not wait for Arrow
    import pyarrow as pa

Pooling = Literal["last", "mean", "cls"]
Dtype = Literal["float32", "float16", "int8", "binary"]  # of stored vectors
RejectReason = Literal[
    "null_text",  # every text column is null or absent
    "empty_text",  # nothing but white space, or nothing that has a token
    "not_text",  # a text column holds a number, a list, ...
    "undecodable",  # bytes that are not UTF-8
    "not_json",  # a line that is no JSON object
    "not_csv",  # a row with more or fewer cells than the header
    "line_too_long",
    "null_id",  # the id is null or absent
    "wrong_type",  # an id or kept column that does not fit the type of the run
    "too_long",  # more tokens than the limit, where the run rejects long documents
    "bad_vector",  # the engine returned something that is no vector
    "engine_lost",  # the engine's process was lost with it, again and again
]
BITS_PER_VALUE: dict[Dtype, int] = {"float32": 32, "float16": 16, "int8": 8, "binary": 1}
REJECT_REASONS: tuple[RejectReason, ...] = get_args(RejectReason)
Reasons = dict[int, tuple[RejectReason, str]]  # row of a batch, part or shard -> (reason, detail)
LongDocuments = Literal["truncate", "chunk", "mean", "reject"]
# Why an attempt at a shard was lost: its process or its engine ended, memory ran out, its node failed, or another shard was the cause.
Cause = Literal["engine", "memory", "node", "bystander"]


@dataclass(frozen=True)
class VectorForm:
    """How one vector column is stored: the first `dim` components as `dtype`. Its text form is `256:int8`."""

    dim: int
    dtype: Dtype

    @property
    def stored_bytes(self) -> int:
        """Bytes of one vector."""
        return self.dim * BITS_PER_VALUE[self.dtype] // 8

    def __str__(self) -> str:
        return f"{self.dim}:{self.dtype}"


def parse_forms(texts: Sequence[str]) -> tuple[VectorForm, ...]:
    """The forms that texts such as `256:int8` name, in their order. Raises ValueError."""
    forms = []
    for text in texts:
        dim, _, dtype = text.strip().partition(":")
        if not dim.isdigit() or int(dim) < 1 or dtype not in get_args(Dtype):
            raise ValueError(f"{text!r} is not DIM:DTYPE with one of {', '.join(get_args(Dtype))}, as in 256:int8")
        forms.append(VectorForm(int(dim), cast(Dtype, dtype)))
    if not forms or len(set(forms)) != len(forms):
        raise ValueError("name at least one form, and each only once")
    return tuple(forms)


@dataclass(frozen=True)
class Model:
    """What a model's own files say about it; widths and dimensions are numbers of components."""

    name: str  # the hub name or folder that the user gave
    revision: str | None  # commit of the hub, None for a folder; information only
    digest: str  # identity: of the names and contents of all files that are read
    width: int  # components of the full vector
    default_dim: int  # components of a stored vector where the run does not say: fewer than the width where the model's files say so
    max_tokens: int  # of one text, special tokens included
    cache_values: int  # numbers in the KV cache for one token, all layers together
    pooling: Pooling
    prompts: tuple[tuple[str, str], ...]  # name, text
    document_prompt: str
    query_prompt: str
    min_trained_dim: int | None  # the least dimension of a Matryoshka range that ends at the width
    trained_dims: tuple[int, ...]  # Matryoshka dimensions that the model's files list
    native_dtype: str  # of the weights in the files
    end_token: str | None  # the token that must end every document
    file_hashes: tuple[tuple[str, str], ...]  # SHA-256 of the files that are read, by name below the folder; see model_identity
    has_tokenizer_code: bool = False  # whether its files name code of its own that makes tokens of a text

    def trained_for(self, dim: int) -> bool:
        """Whether the model was trained so that its first `dim` components are a vector of their own."""
        in_range = self.min_trained_dim is not None and self.min_trained_dim <= dim <= self.width
        return dim == self.width or in_range or dim in self.trained_dims


@dataclass(frozen=True)
class LoadedFiles:
    """Host and SHA-256 sums of the files that an embedding actor has loaded. The driver compares nodes by them."""

    host: str
    hashes: tuple[tuple[str, str], ...]  # as in Model.file_hashes, weights included


@dataclass(frozen=True)
class Documents:
    """The n documents of a shard in source order, and its rejects."""

    rows: pa.Table  # n rows: id, kept columns
    numbers: npt.NDArray[np.int64]  # (n,): the row of each document in the shard
    texts: list[str]  # n
    rejects: pa.Table  # the other rows of the shard, in order: id in the source's type, schema.REJECTS
    repeated_ids: int  # rows whose id an earlier row of this shard has
    chunk_ends: dict[int, tuple[int, ...]] = field(default_factory=dict)  # by index of a text that joins a list: the ends of its strings


@dataclass(frozen=True)
class Tokens:
    """The token ids of n texts. Text i has the ids `flat[offsets[i]:offsets[i + 1]]`."""

    flat: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]  # (n + 1,)
    n_cut: npt.NDArray[np.int64]  # (n,): tokens cut off the end; an estimate where the text was cut before it was tokenized

    @classmethod
    def join(cls, ids: Sequence[npt.NDArray[np.int32]], n_cut: npt.NDArray[np.int64]) -> Tokens:
        lengths = np.fromiter(map(len, ids), np.int64, len(ids))
        flat = np.concatenate(ids) if len(ids) else np.empty(0, np.int32)
        return cls(flat, np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths)]), n_cut)

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def of(self, text: int) -> npt.NDArray[np.int32]:
        return self.flat[self.offsets[text] : self.offsets[text + 1]]


@dataclass(frozen=True)
class Counts:
    """What was counted while one or more shards were embedded. The counts of shards can be added."""

    rows: int = 0  # source rows: documents + rejects
    documents: int = 0  # embedded documents
    vectors: int = 0  # rows of the data files: more than documents where windows are rows
    rejects: int = 0  # source rows that were not embedded
    repeated_ids: int = 0  # rows whose id an earlier row of the same shard has; repeats across shards are not counted
    tokens: int = 0  # tokens that the model embedded
    truncated: int = 0  # documents whose end was cut off
    tokens_cut: int = 0  # estimated tokens that were cut off
    chunked: int = 0  # documents that were cut into more than one window
    retries: int = 0  # repeated requests to the store, in the processes that had these shards
    int8_components: int = 0  # components of all int8 columns
    clipped: int = 0  # int8 components outside the range of their column

    @property
    def clipped_share(self) -> float:
        return self.clipped / max(1, self.int8_components)

    def __add__(self, other: Counts) -> Counts:
        return Counts(**{count.name: getattr(self, count.name) + getattr(other, count.name) for count in fields(self)})


@dataclass(frozen=True)
class Prepared:
    """A shard that is ready to embed: n output rows and the token ids of m pieces.

    Row `owners[i]` gets the vector of piece i, or the mean of all its pieces by their weights."""

    shard: Shard
    rows: pa.Table  # id, kept columns, (schema.CHUNKS,) schema.TAIL
    numbers: npt.NDArray[np.int64]  # (n,): the row of each row's document in the shard
    tokens: Tokens  # of the m pieces
    owners: npt.NDArray[np.int64]  # (m,): the output row of each piece
    weights: npt.NDArray[np.int64]  # (m,): tokens of the document that a piece adds to the one before; 1 for the only piece of a row
    rejects: pa.Table  # the other rows of the shard, in order
    counts: Counts
    seconds: dict[str, float]


@dataclass(frozen=True)
class Embedded:
    """A shard with its full-width vectors, in source order."""

    prepared: Prepared
    vectors: npt.NDArray[np.float32]  # (rows, width)
    engine: str  # name and version
    started: float  # Unix seconds, before the first engine call
    finished: float  # Unix seconds, after the last engine call


@dataclass(frozen=True)
class Sampled:
    """What a sample of the source shows: its size, and the int8 ranges of its vectors."""

    seen: int = 0  # source rows that were read, rejects included
    vectors: int = 0  # vectors that they gave
    int8_ranges: dict[str, npt.NDArray[np.float32]] = field(default_factory=dict)  # (2, dim) by int8 column; empty without vectors


@dataclass(frozen=True)
class Receipt:
    """What is recorded of a published shard: done marker, metrics and provenance in one."""

    shard: str  # its id
    source: str  # see Shard.source
    counts: Counts
    data_bytes: int  # size of the data file
    data_sha256: str  # of the data file
    seconds: dict[str, float]  # wall time by stage
    embed_started: float  # Unix seconds
    embed_finished: float
    provenance: dict[str, str] = field(repr=False)
    derived_from: str = ""  # name of the data file that it was rewritten from; empty where it was embedded

    def to_dict(self) -> dict[str, Any]:
        """A flat dict: the counts are keys beside the others."""
        values = asdict(self)
        counts: dict[str, Any] = values.pop("counts")
        return values | counts

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Receipt:
        """The inverse of `to_dict`. Raises KeyError or TypeError for a key that is missing or unknown."""
        counted = {count.name for count in fields(Counts)}
        counts = Counts(**{name: values[name] for name in counted})
        return cls(counts=counts, **{name: value for name, value in values.items() if name not in counted})


@dataclass(frozen=True)
class Failure:
    """A shard or a source object that failed, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class LostAttempt:
    """An attempt at a shard whose process or engine was lost. Another attempt follows."""

    where: str
    reason: str
    cause: Cause
    node: str = ""  # id of a node that lacks what the attempt needed; empty where none is to blame
