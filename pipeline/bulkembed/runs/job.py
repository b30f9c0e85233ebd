"""What every shard of a run needs to know."""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed.config.recipe import Recipe
from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig
from bulkembed.dataset.receipts import Ledger
from bulkembed.embedding import model_files, model_identity
from bulkembed.forms import vector_columns
from bulkembed.package_files import Package, installed
from bulkembed.records import Model, VectorForm
from bulkembed.storage.store import Store
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.vectors import quantize

TOKENIZER_FILE = "tokenizer.json"
HASHED_IN_FOOTERS = (TOKENIZER_FILE, ".safetensors")  # ends of the names of files whose hashes footers show


# What is known of the types of the id and the kept columns: a whole snapshot of the line has them, and they stay; the run record of the
# line has them, so that its key files serve; no run of the line has begun; they are others than in its record.
TypesState = Literal["settled", "recorded", "first", "new"]


@dataclass(frozen=True)
class Job:
    """A configuration with everything that had to be looked up; the same for every shard of a run."""

    cfg: RunConfig  # as asked; what changes a vector or a row is in the recipe
    model: Model
    recipe: Recipe
    carried: pa.Schema  # of the id and the kept columns
    package: Package = field(default_factory=installed)  # the bulkembed that looked everything up
    types: TypesState = "settled"  # of `carried`

    @property
    def store(self) -> Store:
        """The store of the output."""
        return Store(self.cfg.storage)

    @property
    def source_store(self) -> Store:
        return self.store.of_source()

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store, self.cfg.output, self.fingerprint)

    @property
    def fingerprint(self) -> str:
        return self.recipe.fingerprint

    @property
    def line(self) -> str:
        """Which snapshots are of one line: the fingerprint without int8 ranges, which may be measured again."""
        return self.recipe.line

    @property
    def engine(self) -> EngineConfig:
        """The engine as it is loaded: as asked, in the recipe's dtype."""
        return self.cfg.engine.model_copy(update={"dtype": self.recipe.vector_key.engine_dtype})

    def with_engine(self, engine: EngineConfig) -> Job:
        """The same job on another engine, and with the recipe of that engine."""
        return replace(self, cfg=self.cfg.model_copy(update={"engine": engine}), recipe=self.recipe.with_engine(engine))

    @property
    def columns(self) -> dict[str, VectorForm]:
        return vector_columns(self.recipe.row_schema.vectors)

    @property
    def int8_columns(self) -> dict[str, VectorForm]:
        return {name: form for name, form in self.columns.items() if form.dtype == "int8"}

    @property
    def int8_ranges(self) -> dict[str, npt.NDArray[np.float32]]:
        """What int8 columns are quantized with, by column: (2, dim). Empty before they are measured."""
        return quantize.int8_ranges_from_text(dict(self.recipe.row_schema.int8_ranges))

    @property
    def needs_int8_ranges(self) -> bool:
        """Whether its int8 ranges must be measured first. Its fingerprint is only the key of those ranges until then."""
        return self.recipe.row_schema.has_int8 and not self.recipe.row_schema.int8_ranges

    @property
    def tokenizer(self) -> Tokenizer:
        return load_tokenizer(self.model, self.recipe.vector_key.chunk_tokens)

    @property
    def provenance(self) -> dict[str, str]:
        """What the vectors are made with, as footers and snapshots have it. It holds no path of the source and no credentials.

        The recipe can be read back from it: see Recipe.from_texts. The names of models and commits, and versions, are information only."""
        return {
            "model": self.model.name,
            "revision": self.model.revision or "",
            **{f"sha256.{name}": digest for name, digest in self.model.file_hashes if name.endswith(HASHED_IN_FOOTERS)},
            "normalization": "l2",
            "fingerprint": self.fingerprint,
            "bulkembed": self.package.version,
            **self.recipe.texts,
            **dict(self.recipe.row_schema.int8_ranges),
        }

    @property
    def short_provenance(self) -> dict[str, str]:
        """The same without the int8 ranges, as receipts have it: there are many, and ranges are up to 40 kB."""
        return {name: text for name, text in self.provenance.items() if not name.startswith(quantize.INT8_RANGES_PREFIX)}


@lru_cache(maxsize=2)
def load_tokenizer(described: Model, max_tokens: int) -> Tokenizer:
    """Loaded once a process. Raises ModelError where this node has another one than was described."""
    path = model_files.locate(described.name, described.revision, weights=False) / TOKENIZER_FILE
    if path.exists():
        model_identity.require_described(
            described, {**dict(described.file_hashes), TOKENIZER_FILE: model_identity.file_hash(path)}, socket.gethostname()
        )
    return Tokenizer(str(path), max_tokens, described.end_token)
