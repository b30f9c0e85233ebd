"""What a host sees of the driver's output, source and model."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from bulkembed.cluster import worker
from bulkembed.errors import BulkembedError, ConfigError, SourceError
from bulkembed.records import LostAttempt
from bulkembed.runs import landmarks
from bulkembed.runs.lookup import open_job
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import simulated

HOST = socket.gethostname()


def other_place(tmp_path: Path) -> None:
    """What lies at the same path on a host that does not mount the driver's folder."""
    shutil.rmtree(tmp_path / "out")


def other_output_of_an_earlier_run(tmp_path: Path) -> None:
    for path in (tmp_path / "out/_meta/clock").iterdir():
        path.write_text("another token")


def other_source(tmp_path: Path) -> None:
    for path in (tmp_path / "in").iterdir():
        path.write_bytes(b"{}\n")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (other_place, ConfigError, f"output: {HOST} cannot read what the driver wrote to .*out .*; use an object store, or a folder"),
        (other_output_of_an_earlier_run, ConfigError, f"output: {HOST} .*another file is there"),
        (lambda path: shutil.rmtree(path / "in"), SourceError, f"source: {HOST} does not see .*in/.* as the driver does .*; use an"),
        (other_source, SourceError, f"source: {HOST} does not see .* as the driver does .it is another one there"),
        (lambda path: path.chmod(0o700), None, ""),
    ],
)
def test_another_place_is_told_from_the_drivers(
    tmp_path: Path, qwen: str, change: Callable[[Path], None], error: type[BulkembedError] | None, message: str
) -> None:
    write_corpus(tmp_path / "in", files=1)
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))
    with landmarks.landmarks(job, plan.pending) as seen:
        change(tmp_path)
        if error is None:
            landmarks.require_seen(job, seen)
        else:
            with pytest.raises(error, match=message):
                landmarks.require_seen(job, seen)
            loaded = worker.Worker().load_model(job, seen)  # on a node that joined after the others had been asked
            assert isinstance(loaded, error)
            for lost in (worker.prepare(plan.pending[0], job, seen)[0], worker.give_up(plan.pending[0], job, seen, "never given up")):
                assert isinstance(lost, LostAttempt)
                assert (lost.cause, lost.reason) == ("node", str(loaded))
    assert not list((tmp_path / "out").glob("_meta/clock/*"))


def test_one_object_that_changes_says_nothing_about_a_host_and_each_place_of_a_source_is_looked_at(tmp_path: Path, qwen: str) -> None:
    for name, files in (("a", 3), ("b", 1)):
        write_corpus(tmp_path / name, files=files)
    job, plan = open_job(simulated([f"{tmp_path}/a/*", f"{tmp_path}/b"], tmp_path / "out", qwen, dedupe=False))
    with landmarks.landmarks(job, plan.pending) as seen:
        assert sorted(len(objects) for objects in seen.sources) == [1, 2]
        (tmp_path / "a/part-0.parquet").write_bytes(b"new")
        landmarks.require_seen(job, seen)
        shutil.rmtree(tmp_path / "b")
        with pytest.raises(SourceError, match=f"does not see {tmp_path}/b/part-0.parquet as the driver does"):
            landmarks.require_seen(job, seen)


def test_a_store_in_which_each_process_is_alone_is_another_place(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    job, plan = open_job(simulated(tmp_path / "in", "memory://of-each-process/out", qwen))
    with landmarks.landmarks(job, []) as seen:
        landmarks.require_seen(job, seen)
        Store().delete(seen.output)
        with pytest.raises(ConfigError, match="output"):
            landmarks.require_seen(job, seen)
    assert plan.pending


def test_a_host_says_what_it_lacks_of_the_model(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    folder = shutil.copytree(qwen, tmp_path / "model")
    job, _ = open_job(simulated(tmp_path / "in", tmp_path / "out", str(folder)))
    assert landmarks.lacks(job) == ""
    shutil.rmtree(folder)
    assert str(folder) in landmarks.lacks(job)
    other = replace(job, package=replace(job.package, version="0.0.1"))
    assert "install the same version" in landmarks.lacks(other)
