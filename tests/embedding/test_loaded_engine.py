"""What the engine computes, and with what: measured in one process for each model and dtype."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import vllm_patches
from bulkembed.embedding.environment import engine_environment
from tests.support.processes import PATIENCE, ROOT

pytestmark = pytest.mark.engine
Probe = Callable[[str, str], dict[str, Any]]


@pytest.fixture(scope="module")
def probe(qwen: str, minilm: str) -> Probe:
    """All numbers of a model and a dtype, measured once."""
    measured: dict[tuple[str, str], dict[str, Any]] = {}
    models = {"qwen": qwen, "minilm": minilm}

    def numbers(name: str, dtype: str) -> dict[str, Any]:
        if (name, dtype) not in measured:
            command = [sys.executable, "-m", "tests.support.engine_probe", models[name], dtype]
            environment = os.environ | engine_environment(EngineConfig(), 2)
            ran = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
            assert ran.returncode == 0, ran.stderr
            measured[name, dtype] = json.loads(ran.stdout.splitlines()[-1])
        return measured[name, dtype]

    return numbers


@pytest.mark.parametrize(("dtype", "max_error"), [("bfloat16", 0.02), ("float32", 1e-5)])
def test_norms_are_the_fused_kernels_whatever_the_layout_of_their_tensors(probe: Probe, dtype: str, max_error: float) -> None:
    assert probe("qwen", dtype)["norms"] == {"providers": [vllm_patches.PROVIDER] * 2, "max_error": pytest.approx(0, abs=max_error)}


def test_an_engine_listens_on_loopback_alone(probe: Probe) -> None:
    """torch's gloo takes the address of the host's name, unless it is told otherwise."""
    assert set(probe("qwen", "float32")["layers last"]["listening"]) <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize(
    ("dtype", "pooling", "rows", "pooled"),
    [("bfloat16", "last", 6, True), ("float32", "last", 6, True), ("float32", "mean", 3052, False)],
)
def test_the_last_layer_computes_what_is_pooled_and_all_states_that_are_asked_for(
    probe: Probe, dtype: str, pooling: str, rows: int, pooled: bool
) -> None:
    layers = probe("qwen", dtype)[f"layers {pooling}"]
    assert layers["last_layer_rows"] == rows
    assert layers["vectors"] == 6, "the engine reports each document's vector"
    assert layers["max_rows"] == vllm_patches.TILE_TOKENS
    assert (layers["min_cosine_with_last_state"] > 0.9999) == pooled
    assert layers["difference_of_a_part"] == pytest.approx(0, abs=0.05 if dtype == "bfloat16" else 1e-4)


def test_a_bert_layers_widest_activations_are_of_a_tile(probe: Probe) -> None:
    tiles = probe("minilm", "float32")["tiles"]
    assert (tiles["max_rows"], tiles["sum_of_rows"]) == (vllm_patches.BERT_TILE_TOKENS, 2 * 20 * 250 * 6)
    assert tiles["min_cosine"] > 0.99999


def test_memory_does_not_grow_with_every_number_of_tokens_that_was_seen(probe: Probe) -> None:
    first, *later = probe("qwen", "bfloat16")["heap_growth"]
    assert max(later) - first < 1 << 20, "150 numbers of tokens cost 7 kB each"
