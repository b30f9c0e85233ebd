"""Rows without an engine: the card's own rate of matrix multiplications, and the models and the corpus that other rows need."""

from __future__ import annotations

import pickle
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from bulkembed.embedding import model_files
from scripts.benchmarks.material import common_words, texts_of, token_counts, write_corpus
from scripts.gpu.child import Asked, Task
from scripts.gpu.corpus import ids_of, save_ids
from scripts.gpu.flops import layer_matrices
from scripts.gpu.plan import Group, Result
from scripts.gpu.weights import write_random
from scripts.samples import random_qwen3
from scripts.samples.demo_corpus import topics

GEMM_SECONDS = 0.25  # of each shape, after which the card's clock has settled
DOCUMENTS = 4500  # some 10 s of the 4B shape
MAX_DOCUMENT_TOKENS = 512


def prepare(group: Group, task: Task) -> Asked:
    return Asked(task, group)


def gemm(asked: Asked) -> Result:
    """TFLOP/s of the matrix multiplications of a layer in bfloat16 and fp8, and of a large square one."""
    task = asked.task
    sizes, square = task.sizes(asked.group.shape), 64 if task.dry else 8192
    rates: dict[str, dict[str, float]] = {}
    for dtype, make in (("bf16", bf16_product), ("fp8", fp8_product)):
        for tokens in (64, 128) if task.dry else (8192, 32_768):
            spent = operations = 0.0
            for name, (inputs, outputs) in layer_matrices(sizes).items():
                seconds = timed(make(tokens, inputs, outputs, task.device), task)
                rates.setdefault(dtype, {})[f"{name}_{tokens}"] = 2 * tokens * inputs * outputs / seconds / 1e12
                spent, operations = spent + seconds, operations + 2 * tokens * inputs * outputs
            rates[dtype][f"layer_{tokens}"] = operations / spent / 1e12
        rates[dtype][f"square_{square}"] = 2 * square**3 / timed(make(square, square, square, task.device), task) / 1e12
    best = {f"{dtype}_tflops": rounded(max(found.values())) for dtype, found in rates.items()}
    return best | {dtype: {name: rounded(rate) for name, rate in found.items()} for dtype, found in rates.items()}


def rounded(rate: float) -> float:
    """To four digits: tiny shapes make hardly any TFLOP/s."""
    return float(f"{rate:.4g}")


def bf16_product(rows: int, inner: int, columns: int, device: str) -> Callable[[], object]:
    import torch

    left = torch.randn(rows, inner, device=device, dtype=torch.bfloat16)
    right = torch.randn(columns, inner, device=device, dtype=torch.bfloat16)
    return lambda: torch.nn.functional.linear(left, right)


def fp8_product(rows: int, inner: int, columns: int, device: str) -> Callable[[], object]:
    import torch

    left = torch.randn(rows, inner, device=device).to(torch.float8_e4m3fn)
    right = torch.randn(columns, inner, device=device).to(torch.float8_e4m3fn).t()
    scale = torch.ones((), device=device)
    settings = {"scale_a": scale, "scale_b": scale, "out_dtype": torch.bfloat16, "use_fast_accum": True}
    return lambda: torch._scaled_mm(left, right, **settings)


def timed(work: Callable[[], object], task: Task) -> float:
    """Seconds of one call: the median of measurements of several calls each."""
    calls, wanted = (1, 0.002) if task.dry else (5, GEMM_SECONDS)
    for _ in range(2):
        work()
    found: list[float] = []
    while sum(found) * calls < wanted:
        found.append(seconds_of(work, calls, task.device) / calls)
    return statistics.median(found)


def seconds_of(work: Callable[[], object], calls: int, device: str) -> float:
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


def models(asked: Asked) -> Result:
    """Makes the models with random weights and the corpus, where they are not there from a run before; what each took."""
    task = asked.task
    shapes = [asked.group.shape] if asked.group.shape == "8B" else [asked.group.shape, "0.6B"]
    found: Result = {"work": str(task.work)}
    for shape in shapes:
        folder = task.folder(shape)
        started = time.perf_counter()
        if not (folder / "described.pickle").exists():
            found[f"make_{shape}_s"], found[f"write_{shape}_s"], found[f"describe_{shape}_s"] = make(folder, shape, task)
        found[f"{shape}_s"] = round(time.perf_counter() - started, 1)
        found[f"{shape}_gb"] = round((folder / "model.safetensors").stat().st_size / 1e9, 2)
    started = time.perf_counter()
    if not (task.work / "corpus.npz").exists():
        make_corpus(task, task.folder(shapes[0]))
    return found | {"corpus_s": round(time.perf_counter() - started, 1)}


def make(folder: Path, shape: str, task: Task) -> tuple[float, float, float]:
    """Seconds of everything but the weights, of the weights, and of reading what the pipeline knows of a model."""
    began = time.perf_counter()
    config = random_qwen3.write_description(folder, "tiny" if task.dry else shape)
    described = time.perf_counter()
    write_random(folder, config, task.device)
    written = time.perf_counter()
    known = model_files.describe(str(folder), None)
    ended = time.perf_counter()
    (folder / "described.pickle").write_bytes(pickle.dumps(known))
    return round(described - began, 1), round(written - described, 1), round(ended - written, 1)


def make_corpus(task: Task, folder: Path) -> None:
    """Documents with the lengths that earlier measurements had (mean 204 tokens, at most 512), as text and as token ids."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    special = len(tokenizer.encode("").ids)
    words, counts = common_words(lambda word: len(tokenizer.encode(f"{word} {word}").ids) == 2 + special, topics())
    lengths = token_counts(24 if task.dry else DOCUMENTS, 64 if task.dry else MAX_DOCUMENT_TOKENS)
    texts = texts_of(lengths - special, words, counts)
    write_corpus(task.work / "corpus", list(map(str, range(len(texts)))), texts)
    save_ids(task.work / "corpus.npz", ids_of(tokenizer, texts))


ROWS: dict[str, Callable[[Asked], Result]] = {"gemm": gemm, "models": models, "models-8B": models}
