"""Functions on many items as tasks of Ray, and a night whose reading, difference and rewriting are such tasks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
import ray

from bulkembed import stopping
from bulkembed.cluster import on_demand, ray_mapper
from bulkembed.cluster.ray_mapper import MIN_WAITING, RayMapper
from bulkembed.errors import BulkembedError, InterruptedRun, ObjectError
from bulkembed.runs import buckets, lookup
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import Summary, finish
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.nights import sorted_rows
from tests.support.runs import in_one_process, problems, ray_of_the_session, read_dataset, simulated

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_session")]


def square(number: int) -> int:
    return number * number


def fail(number: int) -> int:
    if number == 3:
        raise ObjectError("s3://corpus/a: planted")
    return number


def test_results_come_in_order() -> None:
    assert list(RayMapper().map(square, range(20))) == [number * number for number in range(20)]


def test_an_error_of_a_task_is_raised_as_it_is() -> None:
    with pytest.raises(ObjectError, match=r"^s3://corpus/a: planted$"):
        list(RayMapper().map(fail, range(6)))


def divide(number: int) -> float:
    return 1 / number


def test_a_fault_of_the_code_is_raised_as_it_is() -> None:
    with pytest.raises(ZeroDivisionError):
        list(RayMapper().map(divide, [1, 0]))


def test_the_function_is_sent_once_for_all_items() -> None:
    """It may hold the keys of many objects."""

    def pickled(items: int) -> int:
        sent: list[object] = []

        class Large:
            def __call__(self, item: int) -> int:
                return item

            def __reduce__(self) -> tuple[type, tuple[()]]:
                sent.append(self)
                return type(self), ()

        assert list(RayMapper().map(Large(), range(items))) == list(range(items))
        return len(sent)

    assert pickled(1) == pickled(9)


def test_many_tasks_wait_for_a_cluster_that_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "cluster_resources", dict)
    items = iter(range(200))
    results = RayMapper().map(square, items)
    assert next(results) == 0
    assert next(items) == MIN_WAITING
    assert sum(1 for _ in results) == 198


def die(_item: int) -> None:
    os._exit(1)


def test_a_task_that_loses_every_process_ends_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray_mapper, "MAX_RETRIES", 0)
    with pytest.raises(BulkembedError, match=r"^a task was lost 1 times: "):
        list(RayMapper().map(die, [1]))


def die_once(place: Path) -> str:
    if not place.exists():
        place.touch()
        os._exit(1)
    return "done"


def test_a_task_whose_process_is_lost_is_made_again(tmp_path: Path) -> None:
    assert list(RayMapper().map(die_once, [tmp_path / "mark"])) == ["done"]


def test_a_signal_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stopping, "stop", stopping.Stop())
    stopping.stop.request(15)
    with pytest.raises(InterruptedRun):
        list(RayMapper().map(sleep_long, [1]))


def sleep_long(_item: int) -> None:
    """Longer than a signal goes unnoticed, and no longer: a task that begins as it is cancelled keeps its core to its end."""
    import time

    time.sleep(3 * ray_mapper.POLL_SECONDS)


@pytest.fixture
def all_in_tasks(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is small enough for the driver, and keys lie in several buckets."""
    monkeypatch.setattr(on_demand, "LOCAL_BYTES_ON_CLUSTER", -1)
    monkeypatch.setattr(lookup, "MAX_BYTES_HERE", -1)
    monkeypatch.setattr(buckets, "ROWS_HERE", 60)
    monkeypatch.setattr(buckets, "PARTITION_ROWS", 60)
    return iter([None])


@pytest.mark.usefixtures("all_in_tasks")
def test_a_night_in_tasks_is_the_night_of_one_process(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    run_in_tasks(cfg)
    changed = [*rows[50:99], {"id": 1, "text": "new", "lang": "en"}, {"id": 2, "text": "new", "lang": "en"}, rows[99] | {"lang": "yy"}]
    write_jsonl(tmp_path / "in" / "part-1.jsonl", changed)
    summary = run_in_tasks(cfg)
    assert (summary.night.embedded, summary.night.duplicates, summary.night.reused) == (1, 1, 1)
    assert list((tmp_path / "out/_meta/exchange").iterdir()) == []
    in_one_process(simulated(tmp_path / "in", tmp_path / "fresh", qwen)).require_complete()
    assert sorted_rows(read_dataset(tmp_path / "out")).equals(sorted_rows(read_dataset(tmp_path / "fresh")))
    assert problems(tmp_path / "out") == []


def run_in_tasks(cfg: object) -> Summary:
    job, plan = open_job(cfg)  # type: ignore[arg-type]
    with ExitStack() as stack:
        executor = stack.enter_context(ray_of_the_session(job))
        summary = finish(job, plan, lambda progress: None, executor)
    summary.require_complete()
    return summary
