"""Rows of a loaded engine. The engine is the job's own, of `bulkembed.embedding.vllm_engine`."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.preflight import PROBES
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from bulkembed.vectors import matryoshka
from scripts.benchmarks.measuring import seconds_of
from scripts.gpu import timeline
from scripts.gpu.child import Task
from scripts.gpu.corpus import random_ids
from scripts.gpu.loaded import Loaded, build, failed_checks, prepare, tokenizer_of
from scripts.gpu.plan import Result
from scripts.gpu.rates import rate, rate_with_steps

COMPARED_DOCUMENTS = 256
REFERENCE_LENGTHS = (8, 32, 128, 256, 500)
LONG_DOCUMENTS = 6


def start(loaded: Loaded) -> Result:
    """Seconds from the process's start to an engine that has passed the job's own checks, and their parts."""
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
    """The job's checks once more, on a warm engine that has run them already."""
    started = time.perf_counter()
    failed = failed_checks(loaded)
    return {"checks_again_s": round(time.perf_counter() - started, 2), "checks_failed": failed}


def direct(loaded: Loaded) -> Result:
    """Requests to the engine's core beside `LLM.encode`: vectors and rates of both. The row `fp8` uses the vectors again."""
    documents, task = loaded.documents, loaded.task
    sample = documents[:COMPARED_DOCUMENTS]
    ours = loaded.engine.embed(sample)
    np.save(vectors_file(task, loaded.group.shape), ours)
    theirs = encode(loaded.engine, sample)
    cosines = matryoshka.cosines(ours, theirs)
    many = documents[: 4 * COMPARED_DOCUMENTS]
    tokens = sum(map(len, many))
    seconds = {"direct": seconds_of(lambda: loaded.engine.embed(many)), "encode": seconds_of(lambda: encode(loaded.engine, many))}
    return {
        "cosine_min": float(cosines.min()),
        "largest_difference": float(np.abs(ours - theirs).max()),
        "tokens_per_s": round(tokens / seconds["direct"]),
        "encode_tokens_per_s": round(tokens / seconds["encode"]),
        "core": type(loaded.engine.llm.llm_engine.engine_core).__name__,
    }


def vectors_file(task: Task, shape: str) -> Path:
    return task.work / f"vectors-{shape}.npy"


def encode(engine: VLLMEmbedder, documents: TokenIds) -> Vectors:
    """Vectors of `LLM.encode`, on the engine's own thread."""

    def call() -> Vectors:
        requests = [{"prompt_token_ids": ids.tolist()} for ids in documents]
        outputs = engine.llm.encode(requests, pooling_params=engine.pooling_params, pooling_task="embed", use_tqdm=False)
        return np.stack([output.outputs.data.float().numpy() for output in outputs])

    return engine.on_engine_thread(call)


def rate_at(step_tokens: int) -> Callable[[Loaded], Result]:
    """The row that gives the engine's rate with steps of at most so many tokens."""

    def row(loaded: Loaded) -> Result:
        bound = loaded.task.step_tokens // (32_768 // step_tokens)
        return {"step_tokens": bound} | rate_with_steps([loaded.engine], loaded, bound, loaded.documents)

    return row


def equal_documents(loaded: Loaded) -> Result:
    """The rate with documents of 512 tokens each."""
    tokens = min(512, loaded.task.max_tokens)
    documents = random_ids(loaded.task.sizes(loaded.group.shape)["vocab_size"], loaded.task.call_tokens * 2 // tokens, tokens)
    return {"document_tokens": tokens} | rate([loaded.engine], documents, loaded)


def long(loaded: Loaded) -> Result:
    """The rate with documents of the model's whole context, where attention takes longer than the GEMMs."""
    tokens = loaded.task.max_tokens
    documents = random_ids(loaded.task.sizes(loaded.group.shape)["vocab_size"], LONG_DOCUMENTS, tokens)
    return {"document_tokens": tokens} | rate([loaded.engine], documents, loaded)


def cosine(loaded: Loaded) -> Result:
    """Vectors beside those of transformers in float32, from the same token ids on the same device, one document at a time."""
    import torch
    from transformers import AutoModel

    task = loaded.task
    documents = list(reference_documents(loaded))
    ours = loaded.engine.embed(documents)
    # The weights move to the device as bfloat16. As float32 on the host they would take twice the time and memory.
    reference = AutoModel.from_pretrained(str(task.folder(loaded.group.shape)), dtype=torch.bfloat16, use_safetensors=True)
    reference = reference.eval().to(task.device).float()
    states = []
    with torch.inference_mode():
        for ids in documents:
            inputs = torch.tensor([ids.tolist()], device=task.device)
            states.append(reference(inputs).last_hidden_state[0, -1].float().cpu().numpy())
    cosines = matryoshka.cosines(ours, np.stack(states))
    return {
        "documents": len(documents),
        "cosine_min": float(cosines.min()),
        "cosine_mean": float(cosines.mean()),
        "by_document": [{"tokens": len(ids), "cosine": round(float(value), 6)} for ids, value in zip(documents, cosines, strict=True)],
    }


def reference_documents(loaded: Loaded) -> Iterator[npt.NDArray[np.int32]]:
    """The texts of the job's own checks, and documents of the corpus of several lengths."""
    tokens = tokenizer_of(loaded).encode([*PROBES.values()], "")
    yield from (tokens.of(number) for number in range(len(PROBES)))
    for length in REFERENCE_LENGTHS:
        yield min(loaded.documents, key=lambda ids: abs(len(ids) - length))


def quantization(loaded: Loaded) -> Result:
    """Rate and vectors of online quantization beside those of bfloat16."""
    result = start_and_rate(loaded)
    bf16_rate = loaded.task.known.get("engine-32k", {}).get("tokens_per_s")
    bf16_vectors = vectors_file(loaded.task, loaded.group.shape)
    if bf16_vectors.exists():
        cosines = matryoshka.cosines(loaded.engine.embed(loaded.documents[:COMPARED_DOCUMENTS]), np.load(bf16_vectors))
        result |= {"cosine_min": float(cosines.min()), "cosine_mean": float(cosines.mean())}
    result |= {"quarter_step_tokens_per_s": quarter_step_rate([loaded.engine], loaded), "quantization": loaded.group.args["quantization"]}
    return result | ({"over_bf16": round(result["tokens_per_s"] / bf16_rate, 3)} if bf16_rate else {})


def quarter_step_rate(engines: list[VLLMEmbedder], loaded: Loaded) -> int:
    """Tokens/s with steps of a quarter of the tokens."""
    return int(rate_with_steps(engines, loaded, loaded.task.step_tokens // 4, loaded.documents)["tokens_per_s"])


def start_and_rate(loaded: Loaded) -> Result:
    return start(loaded) | rate([loaded.engine], loaded.documents, loaded)


def one_engine(loaded: Loaded) -> Result:
    """An engine alone on the GPU, with half of its memory."""
    return start_and_rate(loaded) | {"quarter_step": quarter_step_rate([loaded.engine], loaded)}


def two_engines(loaded: Loaded) -> Result:
    """A second engine beside the first."""
    second = build(loaded.group, loaded.task, loaded.model)
    engines = [loaded.engine, second]
    return rate(engines, loaded.documents, loaded) | {"quarter_step": quarter_step_rate(engines, loaded)}


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
    "fp8": quantization,
    "fp8-tensor": quantization,
    "one-engine": one_engine,
    "two-engines": two_engines,
}
