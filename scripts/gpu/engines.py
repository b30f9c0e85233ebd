"""Rows of a loaded engine. The engine is the job's: `bulkembed.embedding.vllm_engine` builds it and asks it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.preflight import PROBES
from bulkembed.embedding.throughput import cut_calls
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from bulkembed.vectors import matryoshka
from scripts.gpu import timeline
from scripts.gpu.child import Task
from scripts.gpu.corpus import random_ids
from scripts.gpu.flops import flops
from scripts.gpu.loaded import Loaded, bound_steps, build, failed_checks, prepare, tokenizer_of
from scripts.gpu.plan import Result

COMPARED = 256  # documents of which vectors are compared
REFERENCE_LENGTHS = (8, 32, 128, 256, 500)
LONG_DOCUMENTS = 6


def start(loaded: Loaded) -> Result:
    """Seconds from the process's start to an engine that has passed the job's own checks, and where they went."""
    task, began = loaded.task, loaded.task.started
    failed = failed_checks(loaded)
    ended = time.time()
    marks = loaded.marks
    lines = timeline.between(timeline.read(loaded.timeline), began, ended)
    return {
        "start_s": round(ended - began, 1),
        "python_s": round(marks["python"] - began, 1),
        "import_s": round(marks["import"] - marks["python"], 1),
        "load_s": round(marks["load"] - marks["import"], 1),
        "checks_s": round(ended - marks["load"], 1),
        **timeline.timers(lines),
        "checks_failed": failed,
        "notes": timeline.notes(lines),
        "processes": timeline.processes(lines, began),
        "gaps": timeline.gaps(lines, began, ended),
        "step_tokens": task.step_tokens,
    }


def preflight(loaded: Loaded) -> Result:
    """The job's checks once more, on an engine that has run them: what they cost when nothing is left to warm up."""
    started = time.perf_counter()
    failed = failed_checks(loaded)
    return {"checks_again_s": round(time.perf_counter() - started, 2), "checks_failed": failed}


def direct(loaded: Loaded) -> Result:
    """Requests to the engine's core beside `LLM.encode`: the same vectors, and the rates of both. Keeps the vectors for fp8."""
    documents, task = loaded.documents, loaded.task
    sample = documents[:COMPARED]
    ours = loaded.engine.embed(sample)
    np.save(vectors_file(task, loaded.group.shape), ours)
    theirs = encode(loaded.engine, sample)
    cosines = matryoshka.cosines(ours, theirs)
    many = documents[: 4 * COMPARED]
    tokens = sum(map(len, many))
    seconds = {"direct": seconds_of(lambda: loaded.engine.embed(many)), "encode": seconds_of(lambda: encode(loaded.engine, many))}
    return {
        "cosine_min": float(cosines.min()),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "tokens_per_s": round(tokens / seconds["direct"]),
        "encode_tokens_per_s": round(tokens / seconds["encode"]),
        "core": type(loaded.engine.llm.llm_engine.engine_core).__name__,
    }


def seconds_of(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def vectors_file(task: Task, shape: str) -> Path:
    return task.work / f"vectors-{shape}.npy"


def encode(engine: VLLMEmbedder, documents: TokenIds) -> Vectors:
    """Vectors as `vllm.LLM` itself gives them to a user, on the engine's own thread."""

    def call() -> Vectors:
        asked = [{"prompt_token_ids": ids.tolist()} for ids in documents]
        outputs = engine.llm.encode(asked, pooling_params=engine.pooling_params, pooling_task="embed", use_tqdm=False)
        return np.stack([output.outputs.data.float().numpy() for output in outputs])

    return engine.on_engine_thread(call)


def rate_at(step_tokens: int) -> Callable[[Loaded], Result]:
    """A row: the engine's rate with steps of at most so many tokens."""

    def row(loaded: Loaded) -> Result:
        bound = loaded.task.step_tokens // (32_768 // step_tokens)
        return {"step_tokens": bound} | at_step(loaded, bound, loaded.documents)

    return row


def at_step(loaded: Loaded, step_tokens: int, documents: TokenIds) -> Result:
    return bounded([loaded.engine], loaded, step_tokens, documents)


def bounded(engines: list[VLLMEmbedder], loaded: Loaded, step_tokens: int, documents: TokenIds) -> Result:
    bound_steps(loaded.step_file, step_tokens)
    try:
        return rate(engines, documents, loaded)
    finally:
        bound_steps(loaded.step_file, loaded.task.step_tokens)


def rate(engines: list[VLLMEmbedder], documents: TokenIds, loaded: Loaded) -> Result:
    """Tokens/s of engines side by side, in calls like the job's, after a call each that warms them up."""
    task = loaded.task
    order = np.random.default_rng(0).permutation(len(documents))
    lengths = np.array([len(documents[row]) for row in order], np.int64)
    # Side by side calls are shorter: at the end all but one engine wait for the last call.
    batches = [order[rows] for rows in cut_calls(lengths, task.call_tokens // (4 if len(engines) > 1 else 1))]

    def call(engine: VLLMEmbedder, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        with loaded.one_at_a_time:
            engine.embed([documents[row] for row in rows])
        return np.array([len(documents[row]) for row in rows], np.int64)

    beside(engines, lambda engine, _number: [call(engine, batches[0])])
    started = time.perf_counter()
    due = started + task.seconds

    def work(engine: VLLMEmbedder, number: int) -> list[npt.NDArray[np.int64]]:
        done: list[npt.NDArray[np.int64]] = []
        turn = number
        while not done or time.perf_counter() < due:
            done.append(call(engine, batches[turn % len(batches)]))
            turn += len(engines)
        return done

    done = np.concatenate([lengths for each in beside(engines, work) for lengths in each])
    seconds = time.perf_counter() - started
    return {
        "tokens_per_s": round(done.sum() / seconds),
        "documents_per_s": round(len(done) / seconds, 1),
        "tokens": int(done.sum()),
        "seconds": round(seconds, 2),
        "tflops": flops(task.sizes(loaded.group.shape), done) / seconds / 1e12,
    }


def beside(engines: list[VLLMEmbedder], work: Callable[[VLLMEmbedder, int], list[Any]]) -> list[list[Any]]:
    """Results of `work` for each engine, each in a thread of its own."""
    results: list[list[Any]] = [[] for _ in engines]

    def run(number: int) -> None:
        results[number] = work(engines[number], number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(engines))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if not all(results):
        raise RuntimeError("an engine has failed, see the log")
    return results


def equal_documents(loaded: Loaded) -> Result:
    """The rate with documents of 512 tokens, all of the same length."""
    tokens = min(512, loaded.task.max_tokens)
    documents = random_ids(loaded.task.sizes(loaded.group.shape)["vocab_size"], loaded.task.call_tokens * 2 // tokens, tokens)
    return {"document_tokens": tokens} | rate([loaded.engine], documents, loaded)


def long(loaded: Loaded) -> Result:
    """The rate with documents of the model's whole context, where attention takes more than the matrix multiplications."""
    tokens = loaded.task.max_tokens
    documents = random_ids(loaded.task.sizes(loaded.group.shape)["vocab_size"], LONG_DOCUMENTS, tokens)
    return {"document_tokens": tokens} | rate([loaded.engine], documents, loaded)


def cosine(loaded: Loaded) -> Result:
    """Vectors beside those of transformers in float32 on the same device, from the same token ids, one document at a time."""
    import torch
    from transformers import AutoModel

    task = loaded.task
    documents = list(reference_documents(loaded))
    ours = loaded.engine.embed(documents)
    # The weights are bfloat16, so they come to the device as they are: as float32 on the host they take twice the time and memory.
    reference = AutoModel.from_pretrained(str(task.folder(loaded.group.shape)), dtype=torch.bfloat16, use_safetensors=True)
    reference = reference.eval().to(task.device).float()
    states = []
    with torch.inference_mode():
        for ids in documents:
            asked = torch.tensor([ids.tolist()], device=task.device)
            states.append(reference(asked).last_hidden_state[0, -1].float().cpu().numpy())
    cosines = matryoshka.cosines(ours, np.stack(states))
    return {
        "documents": len(documents),
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "by_document": [{"tokens": len(ids), "cosine": round(float(each), 6)} for ids, each in zip(documents, cosines, strict=True)],
    }


def reference_documents(loaded: Loaded) -> Iterator[npt.NDArray[np.int32]]:
    """The gate's own texts, and some of the corpus of several lengths."""
    tokens = tokenizer_of(loaded).encode([*PROBES.values()], "")
    yield from (tokens.of(number) for number in range(len(PROBES)))
    for length in REFERENCE_LENGTHS:
        yield min(loaded.documents, key=lambda ids: abs(len(ids) - length))


def quantized(loaded: Loaded) -> Result:
    """Rate and vectors of online quantization beside bfloat16's."""
    found = start(loaded) | rate([loaded.engine], loaded.documents, loaded)
    plain = loaded.task.known.get("engine-32k", {}).get("tokens_per_s")
    kept = vectors_file(loaded.task, loaded.group.shape)
    if kept.exists():
        cosines = matryoshka.cosines(loaded.engine.embed(loaded.documents[:COMPARED]), np.load(kept))
        found |= {"cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean())}
    smaller = at_step(loaded, loaded.task.step_tokens // 4, loaded.documents)
    found |= {"quarter_step_tokens_per_s": smaller["tokens_per_s"], "quantization": loaded.group.args["quantization"]}
    return found | ({"over_bf16": round(found["tokens_per_s"] / plain, 3)} if plain else {})


def start_and_rate(loaded: Loaded) -> Result:
    return start(loaded) | rate([loaded.engine], loaded.documents, loaded)


def one_engine(loaded: Loaded) -> Result:
    """An engine with half of the GPU's memory that has the GPU to itself."""
    return start_and_rate(loaded) | {"quarter_step": at_step(loaded, loaded.task.step_tokens // 4, loaded.documents)["tokens_per_s"]}


def two_engines(loaded: Loaded) -> Result:
    """A second engine beside the first."""
    second = build(loaded.group, loaded.task, loaded.model)
    engines = [loaded.engine, second]
    found = rate(engines, loaded.documents, loaded)
    smaller = bounded(engines, loaded, loaded.task.step_tokens // 4, loaded.documents)
    return found | {"quarter_step": smaller["tokens_per_s"]}


__all__ = ["ROWS", "prepare"]

ROWS: dict[str, Callable[[Loaded], Result]] = {
    "start-cold": start,
    "start-warm": start,
    "start-plan": start,
    "start-in-process": start_and_rate,
    "start-spawn": start,
    "start-eager": start_and_rate,
    "preflight": preflight,
    "direct": direct,
    "engine-32k": rate_at(32_768),
    "engine-16k": rate_at(16_384),
    "engine-8k": rate_at(8192),
    "engine-512": equal_documents,
    "engine-8B": start_and_rate,
    "long": long,
    "cosine": cosine,
    "fp8": quantized,
    "fp8-tensor": quantized,
    "one-engine": one_engine,
    "two-engines": two_engines,
}
