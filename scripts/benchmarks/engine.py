"""vLLM engines that rows measure, each in a process of its own with the environment of an embedding actor."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import in_process
from bulkembed.embedding.environment import engine_environment
from bulkembed.embedding.hardware import has_gpu
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.settings_file import read_json
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from scripts.benchmarks.material import engine_dtype
from scripts.benchmarks.measuring import run_module


def engine_config() -> EngineConfig:
    return EngineConfig(dtype=engine_dtype())


def actor_environment() -> dict[str, str]:
    return engine_environment(engine_config(), None if has_gpu() else len(os.sched_getaffinity(0)))


def ask(module: str, model: Path, max_tokens: int, question: Mapping[str, Any]) -> Any:
    """Runs `python -m scripts.benchmarks.MODULE MODEL MAX_TOKENS QUESTION`. Returns its last line of output, read as JSON.

    It needs a process of its own: glibc reads its settings when a process starts."""
    run = run_module(module, model, max_tokens, json.dumps(question), env=actor_environment())
    return json.loads(run.output.splitlines()[-1])


def load(model: str, max_tokens: int) -> VLLMEmbedder:
    """Loads a model in this process, as an embedding actor does."""
    with in_process.quiet():
        loaded = in_process.load(describe(model, None), max_tokens, engine_config())
    if not isinstance(loaded, VLLMEmbedder):
        raise SystemExit("bench: this row needs the vLLM engine")
    return loaded


def random_ids(generator: np.random.Generator, model: str, documents: int, tokens: int) -> list[npt.NDArray[np.int32]]:
    """Fresh documents of equal length, for which no cache can hold anything."""
    vocabulary = int(read_json(Path(model) / "config.json")["vocab_size"])
    return list(generator.integers(1000, vocabulary, (documents, tokens), np.int32))
