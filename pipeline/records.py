"""Frozen values that cross process borders, and nothing else."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Format = Literal["parquet", "jsonl"]
Pooling = Literal["last", "mean", "cls"]


@dataclass(frozen=True)
class SourceObject:
    """One object of the corpus as the listing shows it; its id changes when its content does."""

    uri: str
    relative_path: str
    size: int
    version: str  # the store's ETag, else size and modification time
    format: Format
    id: str  # sorts in source order: readable part of the path, then a hash of path and version


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

    @property
    def rows(self) -> int:
        return self.stop - self.start

    @property
    def id(self) -> str:
        """Names the output files. Holds the range and the object's length, so that a listing of
        names alone tells which rows of which objects are done."""
        return f"{self.object_id}-{self.start:010d}-{self.stop:010d}-of-{self.total:010d}"


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
    document_prompt: str
    query_prompt: str
    smallest_dim: int | None  # of the Matryoshka range; None: not trained for it
    end_token: str | None  # that must be the last token of every document


@dataclass(frozen=True)
class Documents:
    """A shard as read. `rows` and `texts` are parallel, in source order; `rejects` holds the others."""

    rows: pa.Table  # id, kept columns
    texts: list[str]
    rejects: pa.Table  # schema.REJECTS, plus the id in the source's type
    repeated_ids: int


@dataclass(frozen=True)
class Tokens:
    """Token ids of n documents: document i is `flat[offsets[i]:offsets[i + 1]]`."""

    flat: npt.NDArray[np.int32]
    offsets: npt.NDArray[np.int64]  # n + 1
    truncated: npt.NDArray[np.bool_]  # n

    @property
    def lengths(self) -> npt.NDArray[np.int64]:
        return np.diff(self.offsets)

    def of(self, document: int) -> npt.NDArray[np.int32]:
        return self.flat[self.offsets[document] : self.offsets[document + 1]]


@dataclass(frozen=True)
class Prepared:
    """A shard ready to embed."""

    shard: Shard
    rows: pa.Table  # id, kept columns, n_tokens, truncated, content_hash
    tokens: Tokens
    rejects: pa.Table
    repeated_ids: int
    seconds: dict[str, float]


@dataclass(frozen=True)
class Embedded:
    """A shard with its vectors: float32 of shape (rows, width), in source order."""

    shard: Shard
    rows: pa.Table
    vectors: npt.NDArray[np.float32]
    rejects: pa.Table
    repeated_ids: int
    seconds: dict[str, float]
    started: float  # unix seconds, of the first and the last engine call
    finished: float


@dataclass(frozen=True)
class Receipt:
    """A published shard: done marker, metrics and provenance in one."""

    shard: str
    source: str
    rows: int  # of the source: documents + rejects
    documents: int
    rejects: int
    repeated_ids: int
    tokens: int
    truncated: int
    data_bytes: int
    seconds: dict[str, float]
    embed_started: float
    embed_finished: float
    provenance: dict[str, str] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Failure:
    """A shard or source object that could not be done, and why."""

    where: str
    reason: str


@dataclass(frozen=True)
class Snapshot:
    """The live data files of one finished run. The newest snapshot is the dataset."""

    number: int
    fingerprint: str
    created: str  # ISO 8601, UTC
    shards: list[str]  # in source order
    documents: int
    rejects: int
    provenance: dict[str, str] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
