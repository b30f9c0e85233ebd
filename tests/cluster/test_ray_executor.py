"""The same runs on a real Ray with the simulated engine."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import ray

from bulkembed.cluster import connect, recovery
from bulkembed.cluster.on_demand import OnDemand
from bulkembed.cluster.ray_executor import ray_executor
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.embedding.environment import engine_environment
from bulkembed.errors import BulkembedError, InterruptedRun, ResourceError
from bulkembed.inspection.verify import verify
from bulkembed.records import Failure, LostAttempt, Sampled
from bulkembed.runs.job import Job
from bulkembed.runs.landmarks import landmarks
from bulkembed.runs.lookup import open_job
from bulkembed.runs.progress import Progress
from bulkembed.runs.run import finish
from bulkembed.shards import Shard
from bulkembed.stopping import Stop
from bulkembed.storage.store import Store
from bulkembed.text.tokenizer import Tokenizer
from tests.support.corpora import write_corpus, write_jsonl, write_slow_corpus
from tests.support.faulty_s3 import FaultyS3
from tests.support.processes import PATIENCE, command_of, processes_of_own_ray
from tests.support.runs import OF_RAYS_PROCESSES, in_one_process, on_ray, ray_of_the_session, read_dataset, simulated


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("layout", ["fused", "split"])
def test_ray_gives_what_one_process_gives(tmp_path: Path, qwen: str, layout: str) -> None:
    write_corpus(tmp_path / "in")
    seen: list[int] = []
    cfg = simulated(tmp_path / "in", tmp_path / layout, qwen, dims=[64, 32], ray={"layout": layout})
    on_ray(cfg, lambda progress: seen.append(progress.shards)).require_complete()
    assert seen == list(range(1, 13))
    in_one_process(cfg.model_copy(update={"output": str(tmp_path / "alone")}))
    assert read_dataset(tmp_path / layout).equals(read_dataset(tmp_path / "alone"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("layout", ["fused", "split"])
def test_two_engines_share_what_one_shard_would_have_been(tmp_path: Path, qwen: str, layout: str) -> None:
    rows = [{"id": number, "text": f"document {number} " * 2000, "lang": "xx"} for number in range(60)]
    for name, part in (("a", rows[:20]), ("b", rows[20:])):
        (tmp_path / "in").mkdir(exist_ok=True)
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", part)
    engine = {"kind": "simulated", "tokens_per_second": 1e5, "replicas": 2, "num_cpus": 0.5}
    cfg = simulated(tmp_path / "in", tmp_path / layout, qwen, shards={"max_rows": 100}, ray={"layout": layout}, engine=engine)
    summary = on_ray(cfg)
    summary.require_complete()
    assert len(summary.plan.pending) == 2
    assert summary.progress.shards > 4
    in_one_process(cfg.model_copy(update={"output": str(tmp_path / "alone")}))
    assert read_dataset(tmp_path / layout).equals(read_dataset(tmp_path / "alone"))
    assert open_job(cfg)[1].pending == []


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("layout", ["fused", "split"])
def test_a_shard_that_fails_does_not_end_the_others(tmp_path: Path, qwen: str, layout: str) -> None:
    write_corpus(tmp_path / "in")
    path = tmp_path / "in" / "part-2.parquet"
    raw = bytearray(path.read_bytes())
    raw[4:400] = bytes(396)
    path.write_bytes(raw)
    summary = on_ray(simulated(tmp_path / "in", tmp_path / "out", qwen, ray={"layout": layout}))
    assert summary.progress.counts.documents >= 150
    assert summary.failures
    assert all("part-2" in failure.where for failure in summary.failures)
    assert summary.snapshot is None


def own_processes(title: str) -> list[psutil.Process]:
    """Processes of this process's Ray: another Ray on this host is somebody else's."""
    return [process for process in processes_of_own_ray() if " ".join(command_of(process)).startswith(title)]


KILLS = 3


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize("layout", ["fused", "split"])
def test_a_killed_actor_costs_work_and_nothing_else(tmp_path: Path, qwen: str, layout: str) -> None:
    write_corpus(tmp_path / "in")
    killed: list[int] = []

    def kill(progress: Progress) -> None:
        if progress.shards % 3 == 1:
            for process in own_processes("ray::Worker"):
                killed.append(process.pid)
                process.kill()

    engine = {"kind": "simulated", "tokens_per_second": 3000}
    cfg = simulated(tmp_path / "in", tmp_path / layout, qwen, ray={"layout": layout}, engine=engine)
    summary = on_ray(cfg, kill)
    summary.require_complete()
    assert len(killed) >= KILLS
    assert summary.progress.shards == 12
    in_one_process(cfg.model_copy(update={"output": str(tmp_path / "alone")}))
    assert read_dataset(tmp_path / layout).equals(read_dataset(tmp_path / "alone"))


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(("task", "method", "place"), [("prepare", "GET", "/in/"), ("publish", "PUT", "/data/")])
def test_a_killed_task_costs_work_and_nothing_else(
    tmp_path: Path, qwen: str, s3: dict[str, Any], task: str, method: str, place: str
) -> None:
    """The store ends the process that asks it for a source object, or gives it a data file."""
    write_corpus(tmp_path / "in")
    root = f"s3://corpus/{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        Store(s3).put(f"{root}/in/{path.name}", path.read_bytes())
    killed: list[int] = []

    def kill(asked: str, path: str) -> None:
        if asked == method and place in path and len(killed) < KILLS:
            for process in own_processes(f"ray::{task}"):
                killed.append(process.pid)
                process.kill()

    with FaultyS3(s3["endpoint_url"], seed=7, rate=0, faults=[]) as proxy:
        proxy.watch = kill
        storage = s3 | {"endpoint_url": proxy.url}
        summary = on_ray(simulated(f"{root}/in", f"{root}/out", qwen, ray={"layout": "split"}, storage=storage))
    summary.require_complete()
    assert len(killed) >= KILLS
    assert summary.progress.lost["engine"] >= KILLS
    assert summary.progress.shards >= 12, "a shard that is lost twice is halved"
    in_one_process(simulated(tmp_path / "in", tmp_path / "alone", qwen))
    assert read_dataset(f"{root}/out", **s3).equals(read_dataset(tmp_path / "alone"))


def token(qwen: str, word: str) -> int:
    """A token that stands for a word in any text."""
    return int(Tokenizer(f"{qwen}/tokenizer.json", 64, None).encode([word]).of(0)[0])


@pytest.mark.usefixtures("ray_session")
@pytest.mark.parametrize(
    ("fault", "layout"),
    [*itertools.product(["crash_on", "hang_on"], ["fused", "split"]), ("raise_on", "fused"), ("nan_on", "split")],
)
def test_a_poisonous_document_ends_in_the_rejects_and_no_other(
    tmp_path: Path, qwen: str, layout: str, fault: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "in").mkdir()
    rows = [{"id": number, "text": f"{'@' if number == 6 else 'word'} " * 5, "lang": "xx"} for number in range(16)]
    write_jsonl(tmp_path / "in" / "a.jsonl", rows)
    engine = {"kind": "simulated", "args": {fault: token(qwen, "@ ")}, "stall_seconds": 1}
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, ray={"layout": layout}, engine=engine, dedupe=False, shards={"max_rows": 2})
    summary = on_ray(cfg)
    summary.require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows if row["id"] != 6]
    rejects = pa.concat_tables([pq.read_table(path) for path in tmp_path.glob("out/_meta/rejects/*/*.parquet")])
    assert rejects.select(["id", "row"]).to_pylist() == [{"id": 6, "row": 6}]
    assert rejects["reason"].to_pylist() == ["bad_vector" if fault == "nan_on" else "engine_lost"]
    counts = summary.progress.counts
    assert (counts.rows, counts.documents, counts.rejects) == (16, 15, 1)
    assert bool(summary.progress.lost) == (fault != "nan_on")
    assert list(verify(Store(), *newest_dataset(Store(), str(tmp_path / "out")))) == []
    again = on_ray(cfg)
    assert again.plan.pending == []
    assert capsys.readouterr().out == "", "Ray prints nothing about processes that it has lost"


@pytest.mark.usefixtures("ray_session")
def test_a_poisonous_document_gives_a_sample_no_vector_and_publishes_nothing(tmp_path: Path, qwen: str) -> None:
    """Sampling is the same in both layouts."""
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": f"{'@' if n == 2 else n} word", "lang": "xx"} for n in range(4)])
    engine = {"kind": "simulated", "args": {"raise_on": token(qwen, "@ ")}}
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, ray={"layout": "split"}, engine=engine, vectors="64:int8")
    on_ray(cfg).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [0, 1, 3]
    (ranges,) = (json.loads(path.read_text()) for path in tmp_path.glob("out/_meta/int8_ranges/*/*.json"))
    assert (ranges["rows"], ranges["seen"]) == (3, 4)
    assert len(list(tmp_path.glob("out/_meta/rejects/*"))) == 1
    assert on_ray(cfg).plan.pending == []


@pytest.mark.usefixtures("ray_session")
def test_a_signal_ends_a_sample_at_once_and_sets_nothing(tmp_path: Path, qwen: str, stop: Stop, monkeypatch: pytest.MonkeyPatch) -> None:
    write_slow_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, engine={"kind": "simulated", "tokens_per_second": 50}, vectors="64:int8")
    job, planned = open_job(cfg)

    def sample(executor: OnDemand, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        """All of it would take five minutes."""
        threading.Timer(0.5, stop.request, [15]).start()
        return executor.started(shards, job).sample(shards, job)

    monkeypatch.setattr(OnDemand, "sample", sample)
    with ray_of_the_session(job) as executor, pytest.raises(InterruptedRun) as raised:
        finish(job, planned, lambda progress: None, executor)
    assert raised.value.exit_code == 143
    assert not (tmp_path / "out/_meta/int8_ranges").exists()


@pytest.mark.usefixtures("ray_session")
def test_out_of_memory_halves_until_it_fits(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    engine = {"kind": "simulated", "args": {"memory_tokens": 700}}
    summary = on_ray(simulated(tmp_path / "in", tmp_path / "out", qwen, engine=engine))
    summary.require_complete()
    assert summary.progress.lost["memory"] > 0
    assert summary.progress.counts.rejects == 0
    in_one_process(simulated(tmp_path / "in", tmp_path / "alone", qwen))
    assert read_dataset(tmp_path / "out").equals(read_dataset(tmp_path / "alone"))


@pytest.mark.usefixtures("ray_session")
def test_an_engine_that_fails_on_everything_ends_the_run(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": number, "text": "@ word", "lang": "xx"} for number in range(100)])
    monkeypatch.setattr(recovery, "MAX_LOSSES_IN_A_ROW", 3)
    cfg = simulated(
        tmp_path / "in", tmp_path / "out", qwen, dedupe=False, engine={"kind": "simulated", "args": {"raise_on": token(qwen, "@ ")}}
    )
    with pytest.raises(BulkembedError, match=r"3 attempts in a row were lost, the last of .*: RuntimeError: simulated"):
        on_ray(cfg)


@pytest.mark.usefixtures("ray_session")
def test_an_engine_that_fails_the_gates_calls_is_started_anew_a_few_times(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, dedupe=False, engine={"kind": "simulated", "args": {"memory_tokens": 0}})
    with pytest.raises(BulkembedError, match="3 embedding actors in a row were lost while loading the model: MemoryError: simulated"):
        on_ray(cfg)


@pytest.mark.engine
@pytest.mark.usefixtures("ray_session")
def test_an_actor_that_cannot_load_ends_the_run(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, engine={"kind": "vllm", "args": {"nonsense": 1}})
    with pytest.raises(BulkembedError, match="nonsense"):
        on_ray(cfg)


@pytest.mark.usefixtures("ray_session")
def test_no_task_runs_on_a_node_that_joins_later_and_sees_another_output(tmp_path: Path, qwen: str) -> None:
    """Here it is the only node, so the run ends. Its tasks would otherwise write where nobody looks."""
    write_corpus(tmp_path / "in", files=1)
    job, planned = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, dedupe=False, ray={"layout": "split"}))
    with landmarks(job, planned.pending) as seen, ray_executor(job, 1, OF_RAYS_PROCESSES, seen) as executor:
        executor.tasks = replace(executor.tasks, seen=replace(seen, written="another place"))
        with pytest.raises(BulkembedError, match=r"no node of the cluster can read and publish: output: .* .another file is there"):
            list(executor.run(planned.pending, job))
        assert list(executor.pool.starts.refused.values()) == ["lacking"]
    assert not list(tmp_path.glob("out/data/*/*"))


@pytest.mark.usefixtures("ray_session")
def test_a_source_that_changes_blames_no_node(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    job, planned = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, dedupe=False, ray={"layout": "split"}))
    with landmarks(job, planned.pending) as seen, ray_executor(job, 1, OF_RAYS_PROCESSES, seen) as executor:
        for reference in ray.wait(list(executor.pool.loading))[0]:
            executor.pool.finish_loading(reference)
        write_corpus(tmp_path / "in", files=1)
        outcomes = list(executor.run(planned.pending, job))
        assert not executor.pool.starts.refused
    failed = [outcome for outcome in outcomes if isinstance(outcome, Failure)]
    assert len(failed) == len(planned.pending)
    assert all("changed since this run was planned" in failure.reason for failure in failed)


@pytest.mark.usefixtures("ray_session")
def test_asking_for_gpus_that_are_not_there_says_so(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, engine={"kind": "simulated", "num_gpus": 1})
    with pytest.raises(ResourceError, match="do not fit"):
        on_ray(cfg)


# One Ray of its own, and an actor of each job.
ACTOR_ENVIRONMENT = """
import json, os, sys
import psutil, ray
from bulkembed.cluster import connect
from bulkembed.cluster.ray_executor import ray_executor
from bulkembed.config.run_config import RunConfig
from bulkembed.records import Failure, LostAttempt, Sampled
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job

jobs = [open_job(RunConfig.model_validate_json(text))[0] for text in sys.argv[1:]]
with connect.session(jobs[0].cfg.ray, jobs[0]) as inherited:
    for job in jobs:
        with ray_executor(job, 1, inherited) as executor:
            ((loaded, actor),) = executor.pool.loading.items()
            ray.get(loaded)  # sets the rest of its environment
            has, asked = ray.get(actor.__ray_call__.remote(lambda _self: (dict(os.environ), dict(ray.get_runtime_context().runtime_env))))
        others = [process.environ() for process in psutil.Process().children() if "MARK" in process.environ()]
        print(json.dumps([has, asked, len(others), os.environ.get("MARK")]))
"""


@pytest.mark.ray
def test_a_local_actor_has_its_environment_and_asks_for_what_ray_lacks_alone(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    environments: list[dict[str, str]] = [{}, {"MARK": "here", "OMP_NUM_THREADS": "1"}]
    cfgs = [
        simulated(tmp_path / "in", tmp_path / "out", qwen, engine={"kind": "simulated", "env": env}, ray={"num_cpus": 2})
        for env in environments
    ]
    command = [sys.executable, "-c", ACTOR_ENVIRONMENT, *(cfg.model_dump_json() for cfg in cfgs)]
    ran = subprocess.run(command, capture_output=True, text=True, check=True, timeout=PATIENCE)
    for env, cfg, line in zip(environments, cfgs, ran.stdout.splitlines()[-2:], strict=True):
        has, asked, marked, own = json.loads(line)
        assert engine_environment(cfg.engine, 2).items() <= has.items()
        assert asked.get("env_vars", {}) == {name: value for name, value in env.items() if name != "MARK"}  # which may be a secret
        assert (marked, own) == (0, None)


@pytest.mark.usefixtures("ray_session")
def test_an_actor_of_a_joined_ray_asks_for_all_of_its_environment(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, engine={"kind": "simulated", "env": {"MARK": "here"}})
    job = open_job(cfg)[0]
    needed = engine_environment(cfg.engine, 2)
    for name in needed:  # what the driver has, the processes of a cluster do not
        monkeypatch.setenv(name, needed[name])
    with connect.session(job.cfg.ray, job) as inherited, ray_executor(job, 1, inherited) as executor:
        ((loaded, actor),) = executor.pool.loading.items()
        ray.get(loaded)  # sets the rest of its environment
        has, asked = ray.get(actor.__ray_call__.remote(lambda _self: (dict(os.environ), dict(ray.get_runtime_context().runtime_env))))
    assert needed.items() <= has.items()
    assert "MARK" not in asked["env_vars"]
