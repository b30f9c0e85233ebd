"""How many requests a night makes on S3, by kind. Each costs some 20 to 50 ms, and none but the listings may grow with the source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import Summary, finish, lease_of
from bulkembed.storage.store import Store
from tests.support.counted_s3 import CountedS3, Request
from tests.support.runs import in_one_process, simulated

OBJECTS = 20  # more than any number below


@dataclass(frozen=True)
class Bucket:
    """A source of many objects and its dataset, looked at through a proxy that counts."""

    store: Store  # without the proxy
    root: str
    proxy: CountedS3
    cfg: RunConfig

    def write(self, number: int, version: str) -> None:
        row = {"id": number, "text": f"document {number} {version}", "lang": "en"}
        self.store.put(f"{self.root}/in/{number:04d}.jsonl", json.dumps(row).encode() + b"\n")

    def night(self) -> tuple[Summary, list[Request]]:
        """A run as `bulkembed run` does it, on an engine in this process, and its requests."""
        self.proxy.taken()
        job, plan = open_job(self.cfg)
        executor = LocalExecutor(SimulatedEmbedder(64, 1e9))
        if plan.is_still:
            return finish(job, plan, lambda progress: None, executor), self.proxy.taken()
        with lease_of(job) as held:
            summary = finish(job, plan, lambda progress: None, executor, held=held)
        return summary, self.proxy.taken()


@pytest.fixture(scope="module")
def dataset(s3: dict[str, Any], qwen: str) -> Iterator[Bucket]:
    root = "s3://corpus/requests"
    with CountedS3(s3["endpoint_url"]) as proxy:
        cfg = simulated(f"{root}/in", f"{root}/out", qwen, storage=s3)
        bucket = Bucket(Store(s3), root, proxy, cfg.model_copy(update={"storage": s3 | {"endpoint_url": proxy.url}}))
        for number in range(OBJECTS):
            bucket.write(number, "first")
        in_one_process(cfg).require_complete()
        yield bucket


def kinds(requests: list[Request]) -> Counter[str]:
    return Counter(request.kind for request in requests)


def test_a_still_night_looks_at_each_thing_once(dataset: Bucket) -> None:
    summary, requests = dataset.night()
    assert summary.plan.is_still and summary.is_current
    assert len(requests) == len(set(requests)), "nothing is asked for twice"
    assert kinds(requests) == {"LIST": 8, "GET": 7, "HEAD": 1}
    assert not [request for request in requests if {"data", "keys", "in"} & set(request.place.split("/")) and request.kind == "GET"]
