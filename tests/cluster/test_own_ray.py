"""What a Ray of a run's own needs of its host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import pytest

from bulkembed.cluster import connect, own_ray
from bulkembed.errors import ClusterError
from tests.support.processes import ROOT, listening_addresses, processes_of_own_ray


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
    assert own_ray.temporary_folder({"TMPDIR": named}) == tmp_path / own_ray.PRIVATE_FOLDER / "r"
    with pytest.raises(ClusterError, match=f"{named} .*set RAY_TMPDIR"):
        own_ray.temporary_folder({"RAY_TMPDIR": named})


def test_no_folder_at_all_names_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(own_ray, "FOLDERS", ("/proc/none",))
    with pytest.raises(ClusterError, match=rf"/tmp/x{{50}} is longer than {own_ray.MAX_FOLDER_BYTES} bytes; /proc/none cannot be written"):
        own_ray.temporary_folder({"TMPDIR": "/tmp/" + "x" * 50})


@pytest.mark.parametrize(("is_writable", "place"), [(True, None), (False, "/x")])
def test_objects_lie_elsewhere_where_shared_memory_cannot_be_written(
    is_writable: bool, place: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: is_writable)
    assert own_ray.object_folder(Path("/x")) == place


def link_elsewhere(private: Path) -> None:
    (private.parent / "elsewhere").mkdir(mode=0o700)
    private.symlink_to("elsewhere")


def open_folder(private: Path) -> None:
    private.mkdir()
    private.chmod(0o711)


FOREIGN: dict[str, Callable[[Path], object]] = {
    "a link to a folder": link_elsewhere,
    "a link to nothing": lambda private: private.symlink_to("none"),
    "a file": lambda private: private.touch(mode=0o600),
    "a folder that others can enter": open_folder,
}


@pytest.mark.parametrize("what", FOREIGN)
def test_what_another_tenant_has_made_under_the_name_of_rays_folder_is_not_used(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, free = tmp_path / "taken", tmp_path / "free"
    taken.mkdir()
    FOREIGN[what](taken / own_ray.PRIVATE_FOLDER)
    monkeypatch.setattr(own_ray, "MAX_FOLDER_BYTES", 100)
    monkeypatch.setattr(own_ray, "FOLDERS", (str(taken), str(free)))
    assert own_ray.temporary_folder({}) == free / own_ray.PRIVATE_FOLDER / "r"
    assert (free / own_ray.PRIVATE_FOLDER).stat().st_mode & 0o777 == 0o700
    with pytest.raises(ClusterError, match=rf"{taken} (has a {own_ray.PRIVATE_FOLDER} that is not|cannot be written \(File exists\))"):
        own_ray.temporary_folder({"RAY_TMPDIR": str(taken)})
    assert not list(tmp_path.glob("elsewhere/*"))


def test_a_folder_of_another_user_is_not_private(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    assert own_ray.is_private(tmp_path.stat())
    others = list(tmp_path.stat())
    others[4] = os.getuid() + 1
    assert not own_ray.is_private(os.stat_result(others))


class Lonely(NamedTuple):
    """A run on a Ray of its own beside another one, without a home, with a long TMPDIR, by a user whose umask forbids nothing."""

    code: int
    errors: str
    listening: set[str]  # addresses, of all its processes at any time
    folder: Path  # all that it may write to


@pytest.fixture(scope="module")
def lonely(tmp_path_factory: pytest.TempPathFactory, qwen: str, ray_session: None) -> Lonely:
    folder = tmp_path_factory.mktemp("lonely")
    (folder / "in").mkdir()
    (folder / "in" / "a.jsonl").write_text(json.dumps({"id": 1, "text": "a b"}) + "\n")
    temporary = folder / ("long" * 25)
    temporary.mkdir()
    places = ["--source", str(folder / "in"), "--output", str(folder / "out"), "--model", qwen]
    command = [sys.executable, "-m", "bulkembed", "run", *places, "--set", "engine.kind=simulated", "--max-tokens", "64"]
    command += ["--set", "ray.layout=fused"]
    clean = {"RAY_ADDRESS": "", "RAY_AUTH_TOKEN": "", "HOME": "/dev/null", "TMPDIR": str(temporary)}
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | clean, umask=0, text=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    addresses = watched(process)
    return Lonely(process.wait(), process.communicate()[1], addresses, folder)


def watched(process: subprocess.Popen[str]) -> set[str]:
    """The addresses at which a process and its descendants listen until it ends."""
    addresses: set[str] = set()
    while process.poll() is None:
        with suppress(psutil.NoSuchProcess):
            family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
            addresses |= set().union(*map(listening_addresses, family))
        time.sleep(0.2)
    return {address.removeprefix("::ffff:") for address in addresses}


@pytest.mark.ray
def test_a_run_needs_neither_a_home_nor_a_short_temporary_folder(lonely: Lonely) -> None:
    assert lonely.code == 0, lonely.errors
    assert list(lonely.folder.glob("out/data/*/*.parquet"))


@pytest.mark.ray
def test_two_rays_on_a_host_leave_each_other_alone(lonely: Lonely) -> None:
    import ray

    assert lonely.code == 0, lonely.errors
    assert ray.get(ray.put("there")) == "there"
    assert ray.cluster_resources()["CPU"] == 2


@pytest.mark.ray
def test_no_process_of_a_run_listens_beyond_loopback(lonely: Lonely) -> None:
    assert "127.0.0.1" in lonely.listening
    assert lonely.listening <= {"127.0.0.1", "::1"}


@pytest.mark.ray
def test_nothing_that_a_run_writes_can_be_written_by_others_whatever_the_umask(lonely: Lonely) -> None:
    written = [lonely.folder / "out", *lonely.folder.glob("out/**/*"), *lonely.folder.glob("long*/**/*")]
    assert len(written) > 10
    assert [path for path in written if path.lstat().st_mode & 0o002] == []


@pytest.mark.usefixtures("ray_session")
def test_no_process_of_its_own_ray_listens_for_jobs() -> None:
    listening = {process.name() for process in processes_of_own_ray() if listening_addresses(process)}
    assert "raylet" in listening
    assert "ray::DashboardAgent" not in listening


@pytest.mark.usefixtures("ray_session")
def test_the_token_of_its_own_ray_is_not_the_home_folders() -> None:
    assert os.environ["RAY_AUTH_TOKEN"]


def test_an_interrupt_waits_for_the_end_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a shutdown would leave processes behind, and print what they miss."""
    shutdown, interrupts = Future[None](), [KeyboardInterrupt(), KeyboardInterrupt()]

    def interrupted(waited_for: list[Future[None]]) -> None:
        if interrupts:
            raise interrupts.pop()
        waited_for[0].set_result(None)

    monkeypatch.setattr(connect, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        connect.wait_to_the_end(shutdown)
    assert shutdown.done()
