"""A small corpus that its upstream job writes anew every night, and what a night's run must make of it."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import Summary, run
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl

Row = dict[str, Any]
SCHEMA = pa.schema([("id", pa.int64()), ("text", pa.string()), ("lang", pa.string())])
LANGUAGES = ("en", "de", "fr", None)


class Upstream:
    """Documents with repeated ids, exact duplicates and rejects. `next_night` does to them what upstream jobs do."""

    def __init__(self, seed: int, documents: int, words: int = 4) -> None:
        self.random = random.Random(seed)
        self.words = words  # of a text at least; texts have up to three times as many
        self.made = 0  # documents and texts that were ever made: each has a number that no other has
        self.rows = [self.new_row() for _ in range(documents)]
        self.gone: list[Row] = []
        self.next_night(documents)

    def new_text(self) -> str:
        """Every word has the text's number, so that no two texts share a window."""
        self.made += 1
        words = self.random.choices(["night", "shard", "vector", "index", "search"], k=self.random.randint(self.words, 3 * self.words))
        return " ".join(f"{word} {self.made}" for word in words)

    def new_row(self) -> Row:
        text = self.new_text()
        return {"id": self.made, "text": text, "lang": self.random.choice(LANGUAGES)}

    def some(self, most: int) -> list[Row]:
        return self.random.sample(self.rows, self.random.randint(0, min(most, len(self.rows))))

    def next_night(self, documents: int) -> None:
        """Changes up to a twentieth of `documents` in each of the ways in which rows change."""
        most = max(1, documents // 20)
        self.rows = [dict(row) for row in self.rows]
        for row in self.some(most):
            row["text"] = self.new_text()
        for row in self.some(most):
            row["lang"] = self.random.choice(LANGUAGES)
        for row in self.some(3):
            row["text"] = self.random.choice(["", " \n", None])  # these are rejects until a later night changes their text
        for one, other in zip(self.some(most), self.some(most), strict=False):
            one["text"], other["text"] = other["text"], one["text"]
        copies = [dict(row) for row in self.some(3)]  # exact duplicates
        copies += [row | {"text": self.new_text()} for row in self.some(3)]  # repeated ids
        copies += [self.new_row() | {"text": row["text"]} for row in self.some(3)]  # the same text under another id
        self.rows += copies + [self.new_row() for _ in range(self.random.randint(1, most))]
        self.rows += [self.gone.pop() for _ in range(self.random.randint(0, len(self.gone)) // 2)]
        for row in self.some(min(most, 8)):
            self.rows.remove(row)
            self.gone.append(row)

    def write(self, folder: Path) -> None:
        """Writes all rows anew as Parquet and JSONL files, with other names, in another order and with other cuts."""
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        rows = self.random.sample(self.rows, len(self.rows))
        borders = sorted(self.random.sample(range(1, len(rows)), self.random.randint(1, 4)))
        for start, stop in zip([0, *borders], [*borders, len(rows)], strict=True):
            name = folder / f"part-{self.random.randrange(10**6):06d}"
            if self.random.random() < 0.5:
                table = pa.Table.from_pylist(rows[start:stop], SCHEMA)
                pq.write_table(table, name.with_suffix(".parquet"), row_group_size=self.random.randint(5, 50))
            else:
                write_jsonl(name.with_suffix(".jsonl"), rows[start:stop])

    def contents(self) -> set[str]:
        """The different texts that can be embedded."""
        return {row["text"] for row in self.rows if row["text"] and row["text"].strip()}


class CountingEmbedder(SimulatedEmbedder):
    """Notes the token ids of every document that reaches the engine."""

    def __init__(self) -> None:
        super().__init__(64, 1e9)
        self.seen: list[bytes] = []

    def embed(self, documents: TokenIds) -> Vectors:
        self.seen += [ids.tobytes() for ids in documents]
        return super().embed(documents)


def complete_run(cfg: RunConfig) -> tuple[Summary, int]:
    """A run that must succeed, and how many documents or windows it has sent to the engine."""
    embedder = CountingEmbedder()
    summary = run(cfg, lambda progress: None, LocalExecutor(embedder))
    summary.require_complete()
    return summary, len(embedder.seen)


class Killed(BaseException):
    """Ends a run as `kill -9` does: nothing that follows it in this process reaches the store."""


def raise_killed() -> None:
    raise Killed


class WritesUntilKilled:
    """Lets `writes` writes of this process through, and calls `kill` in all that follow."""

    def __init__(self, patched: pytest.MonkeyPatch, writes: float, kill: Callable[[], None] = raise_killed) -> None:
        self.left, self.done, self.kill = writes, 0, kill
        for name in ("put", "create", "delete"):
            patched.setattr(Store, name, self.counted(getattr(Store, name)))

    def counted(self, write: Callable[..., Any]) -> Callable[..., Any]:
        def counted(store: Store, *arguments: Any) -> Any:
            if self.done >= self.left:
                self.kill()
            self.done += 1
            return write(store, *arguments)

        return counted


def sorted_rows(table: pa.Table) -> pa.Table:
    """The rows in an order that depends on nothing but the rows, so that equal tables are equal multisets of rows, bit for bit."""
    columns = [bits(column) if pa.types.is_fixed_size_list(column.type) else column.combine_chunks() for column in table.columns]
    as_bits = pa.Table.from_arrays(columns, names=table.column_names)
    return as_bits.sort_by([(name, "ascending") for name in as_bits.column_names])


def bits(vectors: pa.ChunkedArray) -> pa.Array:
    """Vectors as fixed-size binary values."""
    size, width = vectors.type.list_size, vectors.type.value_type.bit_width // 8
    flat = vectors.combine_chunks().flatten()
    data = flat.buffers()[1].slice(flat.offset * width, len(flat) * width)
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(size * width), len(vectors), [None, data])
