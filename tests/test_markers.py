"""The guard of the quick tests: what has no marker finds neither a Ray nor vLLM."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bulkembed.cluster import joining
from bulkembed.errors import ClusterError
from tests.support.processes import ROOT


def test_a_process_of_an_unmarked_test_cannot_load_vllm() -> None:
    ran = subprocess.run([sys.executable, "-c", "import vllm"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode != 0
    assert "vllm" in ran.stderr


def test_a_process_of_an_unmarked_test_joins_no_ray() -> None:
    with pytest.raises(ClusterError):
        joining.require_cluster(os.environ["RAY_ADDRESS"])
