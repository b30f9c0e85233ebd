"""`bulkembed run` as a command, and the figures that its receipts give."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from bulkembed.dataset.snapshots import newest_dataset, snapshot_files
from bulkembed.records import Receipt
from bulkembed.storage.store import Store
from scripts.benchmarks.material import WORK, engine_dtype, shape_of
from scripts.benchmarks.measuring import CommandRun, run_command, tree_memory


@dataclass(frozen=True)
class JobRun:
    """A run from an empty output to its snapshot."""

    process: CommandRun
    receipts: list[Receipt]

    @cached_property
    def tokens(self) -> int:
        return sum(receipt.counts.tokens for receipt in self.receipts)

    @cached_property
    def documents(self) -> int:
        return sum(receipt.counts.documents for receipt in self.receipts)

    @cached_property
    def embedding_began(self) -> float:
        """Unix seconds at which an engine got its first shard."""
        return min(receipt.embed_started for receipt in self.receipts)

    @cached_property
    def embedding_ended(self) -> float:
        """Unix seconds at which an engine finished its last shard."""
        return max(receipt.embed_finished for receipt in self.receipts)

    @property
    def embedding_seconds(self) -> float:
        return self.embedding_ended - self.embedding_began

    @property
    def rate(self) -> float:
        """Steady tokens/s: from the first shard's start on an engine to the last shard's end."""
        return self.tokens / self.embedding_seconds

    def phases(self) -> dict[str, float]:
        """Parts of the wall time. The plan is the first thing that a run prints."""
        started, wall = self.process.started, self.process.wall
        return {
            "planning_s": self.process.first_line,
            "cold_start_s": self.embedding_began - started - self.process.first_line,
            "embedding_s": self.embedding_seconds,
            "publishing_s": started + wall - self.embedding_ended,
        }


def flags(name: str) -> list[str]:
    """Options of a run with a model of SHAPES."""
    shape = shape_of(name)
    return ["--dims", shape.dims, "--allow-untrained-dims", "--max-tokens", str(shape.max_tokens)]


def run(
    source: Path,
    model: Path,
    *flags: str,
    settings: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
    sample: Callable[[int], float] = tree_memory,
    every: float = 1.0,
) -> JobRun:
    """Embeds every document of a source by `bulkembed run`, also those of equal texts.

    `settings`: keys of the configuration; the engine's dtype is this host's."""
    out = WORK / "out-job"
    shutil.rmtree(out, ignore_errors=True)
    command = [sys.executable, "-m", "bulkembed", "run", "--source", str(source), "--output", str(out), "--model", str(model), *flags]
    for name, value in ({"engine.dtype": engine_dtype(), "dedupe": False} | dict(settings)).items():
        command += ["--set", f"{name}={json.dumps(value)}"]  # numbers and strings are written in TOML as in JSON
    process = run_command(command, os.environ | (env or {}), sample, every)
    store = Store()
    ledger, snapshot = newest_dataset(store, str(out))
    return JobRun(process, list(ledger.read_receipts(snapshot_files(store, str(out), snapshot))))
