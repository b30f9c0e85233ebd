"""How many tokens/s a host can feed and drain, with everything real but the model: the simulated engine sleeps
for tokens / rate seconds and returns vectors of the right size."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from pipeline.ledger import dataset
from pipeline.storage import Store
from scripts import make_corpus, random_qwen3

CHARACTERS = 1250  # of a document: about 300 tokens
DIMS = (2560, 1024)


def corpus(folder: Path, documents: int) -> Path:
    """Documents of CHARACTERS characters out of the demo corpus, in one Parquet file."""
    place = folder / f"host-{documents}"
    if not place.exists():
        text = "\n\n".join(row["text"] for row in make_corpus.documents())
        starts = itertools.cycle(range(0, len(text) - CHARACTERS, CHARACTERS // 3))
        table = pa.table(
            {"id": range(documents), "text": [text[start : start + CHARACTERS] for start in itertools.islice(starts, documents)]}
        )
        place.mkdir(parents=True)
        pq.write_table(table, place / "a.parquet", row_group_size=2048)
    return place


def model(folder: Path, tokenizer: str | None) -> Path:
    """The files of a model of 2,560 dimensions; its weights are never loaded."""
    place = folder / f"Qwen3-Embedding-{'given' if tokenizer else 'own'}-tokenizer"
    shutil.rmtree(place, ignore_errors=True)
    small = folder / "Qwen3-Embedding-random-small"
    if not (small / "model.safetensors").exists():
        random_qwen3.make(small, "small")
    shutil.copytree(small, place)
    config = json.loads((place / "config.json").read_text())
    (place / "config.json").write_text(json.dumps(config | {"hidden_size": DIMS[0]}))
    if tokenizer:
        given = json.loads(Path(tokenizer).read_text(encoding="utf-8"))
        end = next(each["id"] for each in given["added_tokens"] if each["content"] == random_qwen3.END)
        text, last = {"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": random_qwen3.END, "type_id": 0}}
        ending: dict[str, Any] = {"type": "TemplateProcessing", "single": [text, last], "pair": [text, last]}
        ending["special_tokens"] = {random_qwen3.END: {"id": random_qwen3.END, "ids": [end], "tokens": [random_qwen3.END]}}
        (place / "tokenizer.json").write_text(json.dumps(given | {"post_processor": ending}), encoding="utf-8")
    return place


def tokenizer_rate(folder: Path, source: Path) -> float:
    """Tokens/s of the bare tokenizer on one core."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = pq.read_table(source / "a.parquet")["text"].to_pylist()[:4000]
    rates = []
    for _ in range(3):
        started = time.perf_counter()
        tokens = sum(
            len(each.ids) for start in range(0, len(texts), 256) for each in tokenizer.encode_batch_fast(texts[start : start + 256])
        )
        rates.append(tokens / (time.perf_counter() - started))
    return sorted(rates)[1]


def host(work: Path, rate: float, documents: int, tokenizer: str | None, layout: str, rounds: int) -> dict[str, Any]:
    """`rate`: of the simulated device."""
    source, folder = corpus(work, documents), model(work, tokenizer)
    shares, speeds, walls = [], [], []
    for _ in range(rounds):
        out = work / "out-host"
        shutil.rmtree(out, ignore_errors=True)
        command = [sys.executable, "-m", "pipeline", "run", "--source", str(source), "--output", str(out), "--model", str(folder)]
        command += ["--dims", ",".join(map(str, DIMS)), "--max-tokens", "8192", "--set", "engine.kind=simulated"]
        command += ["--set", f"engine.tokens_per_second={rate}", "--set", "shards.max_rows=1024", "--set", f"ray.layout={layout}"]
        started = time.monotonic()
        subprocess.run(command, check=True, capture_output=True)
        walls.append(time.monotonic() - started)
        ledger, snapshot = dataset(Store(), str(out))
        receipts = list(ledger.read_receipts(snapshot.shards))
        spent = max(each.embed_finished for each in receipts) - min(each.embed_started for each in receipts)
        tokens = sum(each.counts.tokens for each in receipts)
        speeds.append(tokens / spent)
        shares.append(tokens / rate / spent)
    middle = rounds // 2
    return {
        "layout": layout,
        "device_tokens_per_s": rate,
        "simulated_tokens_per_s": round(sorted(speeds)[middle]),
        "busy_share": round(sorted(shares)[middle], 3),
        "tokenizer_tokens_per_s_per_core": round(tokenizer_rate(folder, source)),
        "tokens_per_document": round(tokens / documents),
        "cores": os.cpu_count(),
        "wall_s": round(sorted(walls)[middle], 1),
    }
