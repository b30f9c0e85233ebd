"""The engine that rows measure. The job's own code builds and checks it."""

from __future__ import annotations

import importlib.util
import os
import pickle
import threading
import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bulkembed.config.recipe import Recipe
from bulkembed.config.resolution import resolve
from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import preflight, vllm_engine
from bulkembed.embedding.embedder import TokenIds
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from bulkembed.records import Model
from bulkembed.text.tokenizer import Tokenizer
from scripts.gpu.child import Task
from scripts.gpu.corpus import load_ids
from scripts.gpu.plan import BOUND_FILE, Group

MEMORY_SHARE = 0.6  # of the GPU's memory; the float32 reference needs some too
QUANTIZATION_PACKAGE = "compressed_tensors"


@dataclass
class Loaded:
    """An engine and what the rows need with it."""

    task: Task
    group: Group
    model: Model
    engine: VLLMEmbedder
    documents: TokenIds
    marks: dict[str, float]  # unix seconds at which each part of the start ended
    timeline: Path
    step_file: Path
    one_at_a_time: AbstractContextManager[object]  # held during a call, since engines whose cores share a process must alternate


def prepare(group: Group, task: Task) -> Loaded:
    """Imports vLLM and loads the model. Keeps the time of each part."""
    marks = {"python": time.time()}
    os.environ.update({} if task.dry else group.env)  # a dry run measures several groups in one process
    step_file, log = task.work / f"step-{os.getpid()}", Path(os.environ["GPU_CHECK_TIMELINE"])
    os.environ[BOUND_FILE] = str(step_file)
    bound_steps(step_file, task.step_tokens)
    if "quantization" in group.args and importlib.util.find_spec(QUANTIZATION_PACKAGE) is None:
        raise ModuleNotFoundError(f"vLLM imports {QUANTIZATION_PACKAGE} to quantize, and it is not installed")
    vllm_engine.import_vllm()
    marks["import"] = time.time()
    model = model_of(task, group.shape)
    engine = build(group, task, model)
    marks["load"] = time.time()
    documents, lock = load_ids(task.work / "corpus.npz"), threading.Lock() if task.dry else nullcontext()
    return Loaded(task, group, model, engine, documents, marks, log, step_file, lock)


def model_of(task: Task, shape: str) -> Model:
    model: Model = pickle.loads((task.folder(shape) / "described.pickle").read_bytes())  # noqa: S301 - card.make wrote it
    return model


def build(group: Group, task: Task, model: Model) -> VLLMEmbedder:
    shared = group.name == "two"
    args: dict[str, Any] = {"scheduler_cls": "scripts.gpu.steps.BoundedScheduler"} | ({} if task.dry else dict(group.args))
    if not shared and not task.dry:
        args["gpu_memory_utilization"] = MEMORY_SHARE
    engine = EngineConfig(
        dtype=task.dtype,
        step_tokens=task.step_tokens,
        num_gpus=0.5 if shared and not task.dry else None,
        args=args,
    )
    return VLLMEmbedder(str(task.folder(group.shape)), model, task.max_tokens, engine)


def recipe_of(loaded: Loaded) -> Recipe:
    task = loaded.task
    engine = EngineConfig(dtype=task.dtype, step_tokens=task.step_tokens)
    cfg = RunConfig(source="-", output="-", model=loaded.model.name, max_tokens=task.max_tokens, engine=engine)
    return resolve(cfg, loaded.model, task.dtype)


def tokenizer_of(loaded: Loaded) -> Tokenizer:
    return Tokenizer(str(loaded.task.folder(loaded.group.shape) / "tokenizer.json"), loaded.task.max_tokens, loaded.model.end_token)


def failed_checks(loaded: Loaded) -> list[str]:
    checks = preflight.run_checks(loaded.model, recipe_of(loaded), tokenizer_of(loaded), loaded.engine)
    return [f"{check.name}: {check.detail}" for check in checks if not check.passed]


def bound_steps(file: Path, tokens: int) -> None:
    """Replaces the file in one step, since an engine's process may read it at any time."""
    partial = file.with_name(f"{file.name}.partial")
    partial.write_text(str(tokens), encoding="utf-8")
    partial.replace(file)
