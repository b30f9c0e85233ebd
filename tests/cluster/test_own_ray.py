"""What a Ray of a run's own needs of its host."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkembed.cluster import connect, own_ray
from bulkembed.errors import ClusterError
from tests.support.processes import bulkembed, listening_addresses, processes_of_own_ray


def test_a_token_is_made_where_none_is_set() -> None:
    environment: dict[str, str] = {}
    own_ray.give_token(environment)
    made = environment["RAY_AUTH_TOKEN"]
    assert len(made) == 64
    own_ray.give_token(environment)
    assert environment == {"RAY_AUTH_TOKEN": made}


def test_a_token_of_the_users_stays() -> None:
    environment = {"RAY_AUTH_TOKEN_PATH": "/run/secrets/ray"}
    own_ray.give_token(environment)
    assert environment == {"RAY_AUTH_TOKEN_PATH": "/run/secrets/ray"}


@pytest.mark.parametrize("named", ["/" + "long" * 25, "/proc/none", "relative"])
def test_a_usual_folder_stands_in_for_one_that_does_not_do(named: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_ray, "MAX_FOLDER_BYTES", 100)
    monkeypatch.setattr(own_ray, "FOLDERS", (str(tmp_path),))
    assert own_ray.temporary_folder({"TMPDIR": named}) == tmp_path / "ray"
    with pytest.raises(ClusterError, match=f"{named} .*set RAY_TMPDIR"):
        own_ray.temporary_folder({"RAY_TMPDIR": named})


def test_no_folder_at_all_names_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_ray, "FOLDERS", ("/proc/none",))
    with pytest.raises(ClusterError, match=r"/tmp/x{50} is longer than 39 bytes; /proc/none cannot be written"):
        own_ray.temporary_folder({"TMPDIR": "/tmp/" + "x" * 50})


@pytest.mark.parametrize(("is_writable", "place"), [(True, None), (False, "/x")])
def test_objects_lie_elsewhere_where_shared_memory_cannot_be_written(
    is_writable: bool, place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: is_writable)
    assert own_ray.object_folder(Path("/x")) == place


@pytest.mark.ray
def test_a_run_needs_neither_a_home_nor_a_short_temporary_folder(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text(json.dumps({"id": 1, "text": "a b"}) + "\n")
    temporary = tmp_path / ("long" * 25)
    temporary.mkdir()
    places = ("--source", tmp_path / "in", "--output", tmp_path / "out", "--model", qwen)
    clean = {"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": "", "HOME": "/dev/null", "TMPDIR": str(temporary)}
    result = bulkembed("run", *places, "--set", "engine.kind=simulated", "--max-tokens", 64, **clean)
    assert result.returncode == 0, result.stderr
    assert "1 documents" in result.stdout


@pytest.mark.usefixtures("ray_session")
def test_no_process_of_its_own_ray_listens_for_jobs() -> None:
    listening = {process.name() for process in processes_of_own_ray() if listening_addresses(process)}
    assert "raylet" in listening
    assert "ray::DashboardAgent" not in listening


@pytest.mark.usefixtures("ray_session")
def test_the_token_of_its_own_ray_is_not_the_home_folders() -> None:
    assert os.environ["RAY_AUTH_TOKEN"]


def test_an_interrupt_waits_for_the_end_of_ray() -> None:
    """Half a shutdown would leave processes behind, and print what they miss."""
    with ThreadPoolExecutor(1) as pool:
        shutdown = pool.submit(time.sleep, 0.5)
        for seconds in (0.1, 0.2):
            threading.Timer(seconds, signal.pthread_kill, [threading.get_ident(), signal.SIGINT]).start()
        with pytest.raises(KeyboardInterrupt):
            connect.wait_to_the_end(shutdown)
        assert shutdown.done()
