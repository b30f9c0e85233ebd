"""The row `overhead`: what the embedder adds to the bare engine. Both use one loaded engine of one layer, alternating, on one thread.

The command `python -m scripts.benchmarks.overhead MODEL MAX_TOKENS QUESTION` measures one model."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from bulkembed.embedding.embedder import TokenIds, Vectors
from bulkembed.embedding.settings_file import read_json
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from scripts.benchmarks import engine
from scripts.benchmarks.material import WORK, Row, engine_dtype, model_folder
from scripts.benchmarks.measuring import seconds_of

MODELS = ("qwen3", "minilm")


def overhead(
    model: Annotated[list[str] | None, typer.Option(help="Model of one layer: qwen3 or minilm; repeatable. [default: both]")] = None,
    tokens: Annotated[list[int] | None, typer.Option(help="Tokens of a document; repeatable. [default: 16, 128, 512 or 256]")] = None,
    call_tokens: Annotated[int, typer.Option(help="Tokens of one call.")] = 65_536,
    rounds: Annotated[int, typer.Option(help="Rounds of both, alternating.")] = 5,
) -> Iterator[Row]:
    """The embedder over bare LLM.encode calls, one layer.

    Both ask the same engine. Goal: at least 0.95."""
    for name in model or MODELS:
        folder, longest = one_layer(name), {"qwen3": 512, "minilm": 256}.get(name, 0)
        lengths = sorted({min(length, longest) for length in tokens or (16, 128, 512)})
        question = {"lengths": lengths, "call_tokens": call_tokens, "rounds": rounds}
        for result in engine.ask("overhead", folder, longest, question):
            yield {"model": f"{name}, one layer", **result, "engine_dtype": engine_dtype()}


def one_layer(name: str) -> Path:
    if name not in MODELS:
        raise SystemExit(f"bench: --model {name}: one of {', '.join(MODELS)}")
    return model_folder("one-layer") if name == "qwen3" else one_layer_minilm()


def one_layer_minilm() -> Path:
    """MiniLM with its first layer only."""
    from safetensors.numpy import load_file, save_file

    whole, folder = model_folder("minilm"), WORK / "minilm-one-layer"
    if not folder.exists():
        partial = folder.with_name(f"{folder.name}.partial")
        for path in whole.rglob("*.json"):
            place = partial / path.relative_to(whole)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(path.read_bytes())
        config = read_json(whole / "config.json") | {"num_hidden_layers": 1}
        (partial / "config.json").write_text(json.dumps(config))
        weights = load_file(whole / "model.safetensors")
        kept = {key: value for key, value in weights.items() if "encoder.layer." not in key or "encoder.layer.0." in key}
        save_file(kept, partial / "model.safetensors")
        partial.rename(folder)
    return folder


def bare(embedder: VLLMEmbedder, prompts: list[list[int]]) -> Vectors:
    """The least that a user does: lists of token ids in, an array of vectors out. The engine's own thread is fastest."""

    def call() -> Vectors:
        requests = [{"prompt_token_ids": ids} for ids in prompts]
        outputs = embedder.llm.encode(requests, pooling_params=embedder.pooling_params, pooling_task="embed", use_tqdm=False)
        return np.stack([output.outputs.data.numpy() for output in outputs])

    return embedder.on_engine_thread(call)


def compare(embedder: VLLMEmbedder, model: str, length: int, documents: int, rounds: int) -> Row:
    generator = np.random.default_rng(length)

    def fresh() -> list[Any]:
        return engine.random_ids(generator, model, documents, length)

    def embedder_seconds(documents: TokenIds) -> float:
        return seconds_of(lambda: embedder.embed(documents))

    def bare_seconds(documents: TokenIds) -> float:
        prompts = [ids.tolist() for ids in documents]
        return seconds_of(lambda: bare(embedder, prompts))

    same = fresh()[:4]
    if not np.allclose(embedder.embed(same), bare(embedder, [ids.tolist() for ids in same]), atol=1e-3):
        raise SystemExit("bench: the embedder and the bare engine do not make the same vectors")
    ways = (embedder_seconds, bare_seconds)
    for way in ways:
        way(fresh())  # warms up
    pairs = []
    for number in range(rounds):  # alternating, and so is which of them comes first
        seconds = {way: way(fresh()) for way in (ways if number % 2 else ways[::-1])}
        pairs.append((seconds[embedder_seconds], seconds[bare_seconds]))
    return {
        "tokens": length,
        "documents": documents,
        "embedder_documents_per_s": round(documents / statistics.median(ours for ours, _ in pairs)),
        "bare_documents_per_s": round(documents / statistics.median(theirs for _, theirs in pairs)),
        "ratio": round(statistics.median(theirs / ours for ours, theirs in pairs), 3),
        "ratios": [round(theirs / ours, 3) for ours, theirs in pairs],
    }


def main(model: str, max_tokens: str, question: str) -> None:
    options = json.loads(question)
    embedder = engine.load(model, int(max_tokens))
    sizes = [(length, max(1, options["call_tokens"] // length)) for length in options["lengths"]]
    print(json.dumps([compare(embedder, model, length, documents, options["rounds"]) for length, documents in sizes]))


if __name__ == "__main__":
    main(*sys.argv[1:])
