"""What can be said of an engine without loading it; `test_engine` loads real ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hardware, vllm_engine
from bulkembed.embedding.environment import engine_environment
from bulkembed.embedding.vllm_engine import KV_BLOCK_TOKENS, kv_cache_bytes
from bulkembed.errors import ModelError
from tests.support.models import MODEL


@given(data=st.data(), step_tokens=st.integers(16, 3000), max_tokens=st.integers(1, 3000), sequences=st.integers(1, 40))
def test_the_cache_of_a_cpu_engine_holds_any_step(data: st.DataObject, step_tokens: int, max_tokens: int, sequences: int) -> None:
    left = max(step_tokens, max_tokens)
    step: list[int] = []
    while left and len(step) < sequences:
        step.append(data.draw(st.integers(1, min(left, max_tokens))))
        left -= step[-1]
    engine = EngineConfig(dtype="float32", step_tokens=step_tokens, args={"max_num_seqs": sequences})
    blocks = kv_cache_bytes(replace(MODEL, cache_values=10), max_tokens, engine) // (KV_BLOCK_TOKENS * 10 * 4)
    assert blocks >= sum(-(-tokens // KV_BLOCK_TOKENS) for tokens in step) + 1  # one is vLLM's own


def test_a_given_cache_is_taken_as_it_is() -> None:
    assert kv_cache_bytes(MODEL, 512, EngineConfig(kv_cache_gib=3)) == 3 << 30


@pytest.mark.parametrize("cpus", [2, None])
def test_an_engines_processes_talk_by_loopback(cpus: int | None) -> None:
    """test_loaded_engine looks at the sockets of one on a CPU. One on several GPUs is of processes, which NCCL and gloo connect."""
    several = EngineConfig(tensor_parallel_size=2)
    environment = engine_environment(several, cpus)
    assert environment["GLOO_SOCKET_IFNAME"] == environment["NCCL_SOCKET_IFNAME"] == "lo"
    assert vllm_engine.engine_settings("m", MODEL, 512, several)["distributed_executor_backend"] == "mp"
    assert "distributed_executor_backend" not in vllm_engine.engine_settings("m", MODEL, 512, EngineConfig())


def test_a_model_that_the_host_cannot_hold_is_refused_before_the_kernel_ends_the_process(
    qwen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "memory.max").write_text(f"{700 << 20}\n")
    monkeypatch.setattr(hardware, "CGROUPS", tmp_path)
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)
    model, fits, large = replace(MODEL, cache_values=10), EngineConfig(), EngineConfig(kv_cache_gib=1)
    vllm_engine.require_memory(qwen, model, 64, fits)
    with pytest.raises(ModelError, match=r"needs at least 1\.6 GiB of memory, but this host or container has 0\.7; give it more"):
        vllm_engine.build_engine(qwen, model, 64, large)


def test_a_document_without_tokens_is_named_before_the_engine_fails_on_it() -> None:
    with pytest.raises(ValueError, match="without tokens"):
        list(vllm_engine.pooled_outputs(None, [[101, 102], []], None))
