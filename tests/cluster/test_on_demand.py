"""Who works on how many bytes: threads of this process, or tasks of Ray."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import pytest

from bulkembed.cluster import connect, room
from bulkembed.cluster.on_demand import OnDemand
from bulkembed.cluster.ray_mapper import RayMapper
from bulkembed.runs.lookup import open_job
from bulkembed.runs.mapper import LocalMapper
from tests.support.corpora import write_corpus
from tests.support.runs import simulated

MIB, GIB = 1 << 20, 1 << 30


@pytest.mark.parametrize(
    ("address", "is_connected", "size", "mapper"),
    [
        ("local", False, 4 * GIB, LocalMapper),
        ("local", False, 4 * GIB + 1, RayMapper),
        ("10.0.0.1:6379", False, 256 * MIB, LocalMapper),
        ("10.0.0.1:6379", False, 256 * MIB + 1, RayMapper),
        ("local", True, 256 * MIB + 1, RayMapper),
    ],
)
def test_a_cluster_gets_tasks_sooner_than_this_host(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch, address: str, is_connected: bool, size: int, mapper: type
) -> None:
    write_corpus(tmp_path / "in", files=1)
    monkeypatch.setattr(connect, "is_connected", lambda: is_connected)
    monkeypatch.setattr(room, "require_cores", lambda cfg: None)
    with ExitStack() as stack:
        job = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, engine={"kind": "simulated", "dtype": "float32"}))[0]
        settings = job.cfg.ray.model_copy(update={"address": address})
        executor = OnDemand(type(job)(job.cfg.model_copy(update={"ray": settings}), job.model, job.recipe, job.carried), stack)
        executor.session = {}
        assert isinstance(executor.mapper(size), mapper)
