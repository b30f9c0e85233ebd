"""The row `still`: a night in which nothing has changed, by the command, on S3 with the latency of a network.

A proxy before an S3 server on this host adds the latency to each request, and counts them. The same night on local files shows what
the rest takes: starting Python, imports, the model's files.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
from collections.abc import Iterator, Mapping
from typing import Annotated

import typer

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from bulkembed.storage.store import Store
from scripts.benchmarks.material import WORK, Row, model_folder
from scripts.benchmarks.measuring import run_command


def still(
    objects: Annotated[int, typer.Option(help="Objects of the corpus, of one document each.")] = 200,
    latency: Annotated[float, typer.Option(help="Seconds that each request takes longer.")] = 0.03,
    rounds: Annotated[int, typer.Option(help="Nights of each; the medians are given.")] = 5,
) -> Iterator[Row]:
    """A night without a change: its requests and its time.

    Goal: under 3 s, without Ray, and no data is read."""
    from tests.support.counted_s3 import CountedS3
    from tests.support.s3 import s3_server

    folder = WORK / "still"
    folder.mkdir(parents=True, exist_ok=True)
    yield {"place": "local files", "objects": objects, **night(str(folder), objects, {}, {}, rounds)}
    with s3_server(folder) as storage, CountedS3(storage["endpoint_url"], latency) as proxy:
        env = {"AWS_ACCESS_KEY_ID": storage["key"], "AWS_SECRET_ACCESS_KEY": storage["secret"], "AWS_ENDPOINT_URL": proxy.url}
        row = night("s3://corpus", objects, storage, env, rounds)
        requests = len(proxy.taken()) // (rounds + 1)
        yield {"place": "S3", "objects": objects, "latency_s": latency, "requests": requests, **row}


def night(root: str, objects: int, storage: dict[str, str], env: Mapping[str, str], rounds: int) -> Row:
    """Seconds of the command, after a first run in this process. One night before the others fills the caches of the system.

    `cpu_s`: of all its threads; other work on the host lengthens it little."""
    values = {"source": f"{root}/in", "output": f"{root}/out", "model": str(model_folder("minilm")), "max_tokens": 64}
    store = Store(storage)
    for number in range(objects):
        store.put(f"{root}/in/{number:06d}.jsonl", json.dumps({"id": number, "text": f"document {number}"}).encode() + b"\n")
    cfg = RunConfig.model_validate(values | {"engine": {"kind": "simulated"}, "storage": storage})
    run(cfg, lambda progress: None, LocalExecutor(SimulatedEmbedder(384, 1e12))).require_complete()
    command = [sys.executable, "-m", "bulkembed", "run", "--max-tokens", "64", "--set", 'engine.kind="simulated"']
    command += [word for name in ("source", "output", "model") for word in (f"--{name}", str(values[name]))]
    run_command(command, {**os.environ, **env})
    before = os.times()
    walls = [run_command(command, {**os.environ, **env}).wall for _ in range(rounds)]
    after = os.times()
    cpu = (after.children_user + after.children_system - before.children_user - before.children_system) / rounds
    return {"wall_s": round(statistics.median(walls), 2), "least_s": round(min(walls), 2), "cpu_s": round(cpu, 2)}
