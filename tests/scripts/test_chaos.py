"""Each kind of fault of `scripts/chaos` does what its name says; rounds on a cluster are in test_races and docs/reliability.md."""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from unittest import mock

import psutil
import pytest

from bulkembed.errors import StorageError
from bulkembed.package_files import installed
from bulkembed.storage import retry
from bulkembed.storage.store import Store
from scripts.chaos_rounds import clocks, damages, kills, namespace, networks, packages, pauses, table
from scripts.chaos_rounds.kinds import named, plan_of
from scripts.chaos_rounds.material import Places
from scripts.chaos_rounds.scene import Scene
from tests.support.faulty_s3 import FaultyS3
from tests.support.processes import PATIENCE, wait_until

SLEEPER = [sys.executable, "-c", "import time; time.sleep(600)"]
FULL_DISK = """
import sys
from pathlib import Path
from unittest.mock import Mock
from bulkembed.errors import StorageError
from bulkembed.storage.store import Store
from scripts.chaos_rounds import disks, namespace

disk, namespace.MEGABYTES = Path(sys.argv[1]), 2
namespace.mount(disk)
with disks.full(Mock(where=Mock(disk=disk))) as what:
    print(what)
    try:
        Store().put(str(disk / "a"), b"x" * 9000)
    except StorageError as error:
        print(error)
Store().put(str(disk / "a"), b"x" * 9000)
print(sorted(path.name for path in disk.iterdir()))
"""
NOW_TWICE = """
import datetime, pickle, time
print(time.time(), pickle.loads(pickle.dumps(datetime.datetime.now(datetime.UTC))).timestamp())
"""
PACKAGE = "from bulkembed.package_files import installed; print(*vars(installed()).values())"


def scene_of(output: Path, seed: int = 1, **where: Any) -> Scene:
    return Scene(Places("", str(output), **where), mock.Mock(), SLEEPER, random.Random(seed))


def said_by(code: str, *arguments: str, **env: str) -> list[str]:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=os.environ | env, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEPER)
    yield process
    process.kill()
    process.wait()


def stands_still(process: subprocess.Popen[bytes]) -> bool:
    return bool(psutil.Process(process.pid).status() == psutil.STATUS_STOPPED)


def wait_until_it_stands_still(process: subprocess.Popen[bytes]) -> None:
    """A signal to stop or go on takes a moment."""
    wait_until(lambda: stands_still(process), "a process stands still")


def wait_until_it_goes_on(process: subprocess.Popen[bytes]) -> None:
    wait_until(lambda: not stands_still(process), "a process goes on")


def plan(**asked: str) -> list[str]:
    values: dict[str, Any] = {"plan": None, "kinds": None, "faults": 40, "seed": 3, "layout": "split", "s3": False}
    return [kind.name for kind in plan_of(argparse.Namespace(**values | {name: named(text) for name, text in asked.items()}))]


def test_a_plan_is_repeated_by_its_seed_and_holds_what_was_asked_for() -> None:
    first = plan(kinds="kill,pause-task")
    assert first == plan(kinds="kill,pause-task") and len(first) == 40
    assert {name for name in first if not name.startswith("kill-")} == {"pause-task"}
    assert plan(plan="clock-node,kill-driver,clock-node") == ["clock-node", "kill-driver", "clock-node"]
    with pytest.raises(SystemExit, match="network-hang needs --s3"):
        plan(plan="network-hang")
    with pytest.raises(argparse.ArgumentTypeError, match="kill-everything: no such kind"):
        named("kill-everything")


def test_a_process_stands_still_for_a_while_or_is_killed(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    title = " ".join(SLEEPER)
    with pauses.one_process(title)(scene_of(tmp_path)) as what:
        assert what == f"process {sleeper.pid}"
        wait_until_it_stands_still(sleeper)
    wait_until_it_goes_on(sleeper)
    assert kills.one_process(title)(scene_of(tmp_path)) == f"process {sleeper.pid}"
    assert sleeper.wait(PATIENCE) == -signal.SIGKILL
    assert kills.one_process(title)(scene_of(tmp_path)) is None


def test_a_driver_is_paused_while_another_one_begins(sleeper: subprocess.Popen[bytes], tmp_path: Path) -> None:
    scene, rival = scene_of(tmp_path), mock.Mock()
    scene.driver = sleeper
    with mock.patch.object(Scene, "start", return_value=rival), pauses.driver(scene):
        wait_until_it_stands_still(sleeper)
    wait_until_it_goes_on(sleeper)
    assert list(scene.rivals.values()) == [rival]


@pytest.mark.parametrize(
    ("target", "name"),
    [("manifest", "_meta/manifests/token"), ("snapshot", "_meta/snapshots/00000001.json"), ("current.txt", "current.txt")],
)
def test_a_driver_is_killed_as_soon_as_something_is_published(tmp_path: Path, target: str, name: str) -> None:
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    code = f"import time, pathlib; time.sleep(0.2); pathlib.Path({str(tmp_path / name)!r}).write_text('x'); time.sleep(600)"
    scene = scene_of(tmp_path)
    scene.driver = subprocess.Popen([sys.executable, "-c", code])
    assert kills.driver_after(scene, target) == f"after the {target}"
    assert (tmp_path / name).exists() and scene.driver.returncode == -signal.SIGKILL


def test_a_full_disk_takes_no_byte_and_gives_all_back(tmp_path: Path) -> None:
    if not namespace.can_mount():
        pytest.skip("this host allows no mount namespace")
    command = [*namespace.UNSHARE, sys.executable, "-c", FULL_DISK, str(tmp_path / "disk")]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert said == ["2 MiB taken", f"writing {tmp_path}/disk/a: OSError: No space left on device", "['a']"]


def test_the_clock_of_a_process_is_off() -> None:
    env, what = clocks.skewed(random.Random(1))
    hours = [(float(seconds) - time.time()) / 3600 for seconds in said_by(NOW_TWICE, **env)]
    assert hours == pytest.approx([float(what.removesuffix(" h"))] * 2, abs=0.06)


@pytest.mark.parametrize("what", list(packages.CHANGES))
def test_a_changed_package_is_told_from_the_right_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    monkeypatch.setattr(packages, "WORK", tmp_path)
    version, digest = said_by(PACKAGE, PYTHONPATH=str(packages.changed_package(what)))
    assert digest != installed().digest and (version == installed().version) == (what == "files")


def test_a_network_is_cut_for_a_while(s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "ATTEMPTS", 1)
    with FaultyS3(s3["endpoint_url"], seed=1, rate=0, faults=[]) as proxy:
        store, scene = Store(s3 | {"endpoint_url": proxy.url}), scene_of(Path(), proxy=proxy)
        with networks.cut("refuse")(scene), pytest.raises(StorageError):
            store.put("s3://corpus/cut/a", b"a")
        store.put("s3://corpus/cut/a", b"a")
        with ThreadPoolExecutor(1) as pool:
            with networks.cut("hang")(scene):
                asking = pool.submit(urllib.request.urlopen, proxy.url, timeout=PATIENCE)
                wait_until(lambda: proxy.counts["hang"], "a request that hangs")
                assert not asking.done()
            assert isinstance(asking.exception(), OSError)  # its connection breaks when the network is back
        assert store.read("s3://corpus/cut/a") == b"a" and proxy.counts["refuse"] and proxy.counts["hang"] == 1


def test_damages_are_found_again_and_mended(tmp_path: Path) -> None:
    store, hows = Store(), set()
    for seed in range(12):
        uri, scene = str(tmp_path / f"{seed}/_meta/heads/00000001.json"), scene_of(tmp_path / f"{seed}", seed)
        store.put(uri, bytes(range(100)))
        what = damages.of("damage-rest")(scene)
        assert what is not None and what.endswith(uri)
        hows.add(what.split()[0])
        assert damages.stands(store, scene.damages[0])
        assert damages.named_in(f"{uri}: is damaged", scene.damages) == scene.damages
        assert damages.named_in("1 file is damaged", scene.damages) == []
        damages.mend(store, scene.damages)
        assert store.read(uri) == bytes(range(100)) and not damages.stands(store, scene.damages[0])
    assert hows == {"bit", "cut", "deleted:"}


def test_rounds_make_a_table() -> None:
    counts = dict.fromkeys(("nights", "starts", "lost", "doubled", "different", "wall_s"), 2)
    kinds = {"kill-actor": {"faults": 2, "refusals": 0}, "damage-rest": {"faults": 1, "refusals": 1}}
    lists = {"problems": [], "unexpected": ["a line"], "tracebacks": []}
    rounds = [{"store": store, **counts, **lists, "kinds": kinds, "damages": {"refused": 1}} for store in ("local", "s3", "s3")]
    assert table.table_of(rounds).splitlines()[2:] == ["| kill-actor | 2 | 4 | 0 |", "| damage-rest | 1 | 2 | 3 |", "| all | 3 | 6 | 3 |"]
    assert table.sums_of(rounds) == {**dict.fromkeys(counts, 6), "problems": 0, "unexpected": 3, "tracebacks": 0, "damages refused": 3}
