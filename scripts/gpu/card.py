"""Rows without an engine: the GPU's own GEMM rate, and the models and the corpus that other rows need."""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bulkembed.embedding import model_files
from scripts.benchmarks.material import common_words, texts_of, token_counts, write_corpus
from scripts.gpu.child import RowInput, Task
from scripts.gpu.corpus import ids_of, save_ids
from scripts.gpu.flops import layer_matrices
from scripts.gpu.plan import Group, Result
from scripts.gpu.weights import write_random
from scripts.samples import random_qwen3
from scripts.samples.demo_corpus import topics

GEMM_SECONDS = 0.25  # for each shape; by then the GPU's clock has settled
DOCUMENTS = 4500  # about 10 s of the 4B shape
MAX_DOCUMENT_TOKENS = 512


def prepare(group: Group, task: Task) -> RowInput:
    return RowInput(task, group)


def gemm(row_input: RowInput) -> Result:
    """TFLOP/s of a layer's GEMMs in bfloat16 and fp8, and of a large square GEMM."""
    rates = {"bf16": gemm_rates(row_input, bf16_gemm), "fp8": gemm_rates(row_input, fp8_gemm)}
    return {f"{dtype}_tflops": max(of_dtype.values()) for dtype, of_dtype in rates.items()} | rates


def gemm_rates(row_input: RowInput, make: Callable[[int, int, int, str], Callable[[], object]]) -> dict[str, float]:
    """TFLOP/s of each GEMM, of a layer's GEMMs together, and of a square one. `make` gives a GEMM of these sizes."""
    task = row_input.task
    square = 64 if task.dry else 8192
    rates: dict[str, float] = {}
    for tokens in (64, 128) if task.dry else (8192, 32_768):
        seconds = operations = 0.0
        for name, (inputs, outputs) in layer_matrices(task.sizes(row_input.group.shape)).items():
            gemm_seconds = seconds_per_call(make(tokens, inputs, outputs, task.device), task)
            rates[f"{name}_{tokens}"] = tflops(2 * tokens * inputs * outputs, gemm_seconds)
            seconds, operations = seconds + gemm_seconds, operations + 2 * tokens * inputs * outputs
        rates[f"layer_{tokens}"] = tflops(operations, seconds)
    rates[f"square_{square}"] = tflops(2 * square**3, seconds_per_call(make(square, square, square, task.device), task))
    return rates


def tflops(operations: float, seconds: float) -> float:
    """TFLOP/s with four digits: those of tiny shapes are far below 1."""
    return float(f"{operations / seconds / 1e12:.4g}")


def bf16_gemm(rows: int, inner: int, columns: int, device: str) -> Callable[[], object]:
    import torch

    left = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
    right = torch.randn(columns, inner, device=device, dtype=torch.bfloat16)
    return lambda: torch.nn.functional.linear(left, right)


def fp8_gemm(rows: int, inner: int, columns: int, device: str) -> Callable[[], object]:
    import torch

    left = torch.randn(rows, inner, device=device).to(torch.float8_e4m3fn)
    right = torch.randn(columns, inner, device=device).to(torch.float8_e4m3fn).t()
    scale = torch.ones((), device=device)
    settings = {"scale_a": scale, "scale_b": scale, "out_dtype": torch.bfloat16, "use_fast_accum": True}
    return lambda: torch._scaled_mm(left, right, **settings)


def seconds_per_call(work: Callable[[], object], task: Task) -> float:
    """The median of measurements of several calls each."""
    calls, total_seconds = (1, 0.002) if task.dry else (5, GEMM_SECONDS)
    for _ in range(2):
        work()
    measurements: list[float] = []
    while sum(measurements) * calls < total_seconds:
        measurements.append(seconds_of_calls(work, calls, task.device) / calls)
    return statistics.median(measurements)


def seconds_of_calls(work: Callable[[], object], calls: int, device: str) -> float:
    if device == "cpu":
        started = time.perf_counter()
        for _ in range(calls):
            work()
        return max(time.perf_counter() - started, 1e-9)
    import torch

    began, ended = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    began.record()
    for _ in range(calls):
        work()
    ended.record()
    ended.synchronize()
    return float(began.elapsed_time(ended)) / 1000


def models(row_input: RowInput) -> Result:
    """Makes the models with random weights and the corpus, unless an earlier run has made them. Returns the seconds of each."""
    task, shape_of_group = row_input.task, row_input.group.shape
    shapes = [shape_of_group] if shape_of_group == "8B" else [shape_of_group, "0.6B"]
    result: Result = {"work": str(task.work)}
    for shape in shapes:
        folder = task.folder(shape)
        started = time.perf_counter()
        if not (folder / "described.pickle").exists():
            result[f"make_{shape}_s"], result[f"write_{shape}_s"], result[f"describe_{shape}_s"] = make(folder, shape, task)
        result[f"{shape}_s"] = round(time.perf_counter() - started, 1)
        result[f"{shape}_gb"] = round((folder / "model.safetensors").stat().st_size / 1e9, 2)
    started = time.perf_counter()
    if not (task.work / "corpus.npz").exists():
        make_corpus(task, task.folder(shapes[0]))
    return result | {"corpus_s": round(time.perf_counter() - started, 1)}


def make(folder: Path, shape: str, task: Task) -> tuple[float, float, float]:
    """Makes a model. Returns the seconds of all files but the weights, of the weights, and of reading the model's description."""
    began = time.perf_counter()
    config = random_qwen3.write_description(folder, "tiny" if task.dry else shape)
    described = time.perf_counter()
    write_random(folder, config, task.device)
    written = time.perf_counter()
    model = model_files.describe(str(folder), None)
    ended = time.perf_counter()
    (folder / "described.pickle").write_bytes(pickle.dumps(model))
    return round(described - began, 1), round(written - described, 1), round(ended - written, 1)


def make_corpus(task: Task, folder: Path) -> None:
    """Writes documents as text and as token ids. Their lengths are those of earlier measurements: mean 204 tokens, at most 512."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = len(tokenizer.encode("").ids)
    words, counts = common_words(lambda word: len(tokenizer.encode(f"{word} {word}").ids) == 2 + special, topics())
    lengths = token_counts(24 if task.dry else DOCUMENTS, 64 if task.dry else MAX_DOCUMENT_TOKENS)
    texts = texts_of(lengths - special, words, counts)
    write_corpus(task.work / "corpus", list(map(str, range(len(texts)))), texts)
    save_ids(task.work / "corpus.npz", ids_of(tokenizer, texts))


ROWS: dict[str, Callable[[RowInput], Result]] = {"gemm": gemm, "models": models, "models-8B": models}
