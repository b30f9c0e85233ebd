"""How many requests a night makes on S3, by kind. Each costs some 20 to 50 ms, and none but the listings may grow with the source."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import Summary, finish, lease_of
from bulkembed.source.columns import MAX_SAMPLED
from bulkembed.storage.store import Store
from tests.support.counted_s3 import CountedS3, Request
from tests.support.runs import simulated

OBJECTS = 20  # with a request for each, a night would exceed its numbers below


@dataclass(frozen=True)
class Bucket:
    """A source of many objects and its dataset, behind a proxy that counts."""

    store: Store  # without the proxy
    proxy: CountedS3
    cfg: RunConfig

    def write(self, number: int, version: str) -> None:
        row = {"id": number, "text": f"document {number} {version}", "lang": "en"}
        self.store.put(f"{self.cfg.source}/{number:04d}.jsonl", json.dumps(row).encode() + b"\n")

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
def first_night(s3: dict[str, Any], qwen: str) -> Iterator[tuple[Bucket, list[Request]]]:
    with CountedS3(s3["endpoint_url"]) as proxy:
        storage = s3 | {"endpoint_url": proxy.url}
        bucket = Bucket(Store(s3), proxy, simulated("s3://corpus/requests/in", "s3://corpus/requests/out", qwen, storage=storage))
        for number in range(OBJECTS):
            bucket.write(number, "first")
        yield bucket, bucket.night()[1]


@pytest.fixture
def dataset(first_night: tuple[Bucket, list[Request]]) -> Bucket:
    return first_night[0]


def kinds(requests: list[Request]) -> Counter[str]:
    return Counter(request.kind for request in requests)


def require_at_most(bounds: dict[str, int], requests: list[Request], per_object: Mapping[str, int] = MappingProxyType({})) -> None:
    """Fails where there are more requests of a kind than its bound, or others."""
    found = kinds(requests)
    assert found <= Counter(bounds) + Counter(per_object), sorted(requests)


def test_a_first_run_takes_a_few_requests_for_each_object(first_night: tuple[Bucket, list[Request]]) -> None:
    per_object = {"GET": 5 * OBJECTS, "HEAD": 5 * OBJECTS, "PUT": 3 * OBJECTS}
    sampled = MAX_SAMPLED  # objects whose first rows are looked at for types
    require_at_most({"LIST": 40, "GET": 10 + sampled, "HEAD": 2 + sampled, "PUT": 12, "DELETE": 1}, first_night[1], per_object)


def test_a_still_night_looks_at_each_thing_once_and_reads_no_data(dataset: Bucket) -> None:
    summary, requests = dataset.night()
    assert summary.plan.is_still and summary.is_current
    assert len(requests) == len(set(requests)), "nothing is asked for twice"
    require_at_most({"LIST": 8, "GET": 7, "HEAD": 1}, requests)
    assert not [request for request in requests if request.kind == "GET" and {"data", "keys", "in"} & set(request.place.split("/"))]


def test_one_changed_object_is_read_alone_however_many_nights_there_were(dataset: Bucket) -> None:
    nights = []
    for number in (7, 9, 11):
        dataset.write(number, "changed")
        summary, requests = dataset.night()
        assert (summary.night.changed, summary.night.embedded) == (1, 1)
        of_objects = {request.place for request in requests if ".jsonl" in request.place and request.kind != "LIST"}
        assert all(f"/{number:04d}.jsonl" in place for place in of_objects), "it, its keys, and the files of its rows"
        nights.append(kinds(requests))
        require_at_most({"LIST": 36, "GET": 23, "HEAD": 7, "PUT": 13, "DELETE": 1}, requests)
    assert nights[0] == nights[1] == nights[2]
