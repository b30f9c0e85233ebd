"""What every shard of a run needs to know."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset import vector_columns
from bulkembed.dataset.receipts import Ledger
from bulkembed.embedding import model_files
from bulkembed.records import Model, VectorForm
from bulkembed.storage.store import Store
from bulkembed.text.tokenizer import Tokenizer

TOKENIZER_FILE = "tokenizer.json"


@dataclass(frozen=True)
class Job:
    """A configuration with everything that had to be looked up; the same for every shard of a run."""

    cfg: RunConfig  # resolved: vectors, max_tokens, chunk_tokens and prompt are set
    model: Model
    fingerprint: str
    carried: pa.Schema  # of the id and the kept columns
    provenance: dict[str, str]
    ranges: dict[str, npt.NDArray[np.float32]]  # of int8 columns, by name: (2, dim); empty before they are measured

    @property
    def store(self) -> Store:
        return Store(self.cfg.storage)

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.cfg.output, self.fingerprint)

    @property
    def columns(self) -> dict[str, VectorForm]:
        return vector_columns.vector_columns(self.cfg.vectors or ())

    @property
    def int8_columns(self) -> dict[str, VectorForm]:
        return {name: form for name, form in self.columns.items() if form.dtype == "int8"}

    @property
    def needs_ranges(self) -> bool:
        """Whether its int8 ranges must be measured first. Its fingerprint is only the key of those ranges until then."""
        return bool(self.int8_columns) and not self.ranges

    @property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.model, self.cfg.chunk_tokens or self.cfg.max_tokens or 0)


@lru_cache(maxsize=2)
def load_tokenizer(described: Model, max_tokens: int) -> Tokenizer:
    """Loaded once a process. Raises ModelError where this node has another one than was described."""
    path = model_files.locate(described.name, described.revision, weights=False) / TOKENIZER_FILE
    if path.exists():
        model_files.require_described(
            described, {**dict(described.file_hashes), TOKENIZER_FILE: model_files.file_hash(path)}, socket.gethostname()
        )
    return Tokenizer(str(path), max_tokens, described.end_token)
