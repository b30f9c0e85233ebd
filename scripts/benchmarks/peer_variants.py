"""The commands of each peer, one for each batch size and dtype."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from scripts.benchmarks import peer_environments
from scripts.benchmarks.material import WORK, corpus, model_folder, shape_of
from scripts.benchmarks.measuring import run_command

SCRIPTS = Path(__file__).parent / "peer_scripts"
BATCH_SIZES = (8, 32, 128)  # of sentence-transformers: 32 is its default, and smaller batches pad less


@dataclass(frozen=True)
class Variant:
    """A command of a peer, and what the row says about it.

    Its last line of output is {"documents", "seconds"} by its own clock. A command without a clock has `fewer`: the same
    command over a third of the documents."""

    setting: str
    dtype: str
    command: list[str]
    fewer: list[str] = field(default_factory=list)
    env: dict[str, str] = field(default_factory=dict)
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Work:
    """The input that the job and all peers have."""

    name: str
    documents: int
    dtype: str

    @property
    def model(self) -> str:
        return str(model_folder(self.name))

    @property
    def out(self) -> Path:
        return WORK / "out"

    def third(self) -> Work:
        return replace(self, documents=self.documents // 3)

    def arguments(self, model: str, dtype: str) -> list[str]:
        return [model, str(corpus(self.documents)), str(self.out / "peer"), str(shape_of(self.name).max_tokens), dtype]


def peer_environment() -> dict[str, str]:
    """All cores for the engine, where vLLM would keep one free, and a KV cache of one GiB, which one step fills."""
    return {
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "OMP_NUM_THREADS": str(os.cpu_count() or 1),
    }


def sentence_transformers(work: Work) -> list[Variant]:
    script = str(SCRIPTS / "sentence_transformers_peer.py")
    return [
        Variant(f"batches of {batch}", dtype, [sys.executable, script, *work.arguments(work.model, dtype), "torch", str(batch)])
        for dtype in dict.fromkeys([work.dtype, "float32"])
        for batch in BATCH_SIZES
    ]


def openvino(work: Work) -> list[Variant]:
    """Variants with a model that is exported once. The export is part of no rate."""
    python, folder = str(peer_environments.openvino()), WORK / f"openvino-{work.name}"
    report = folder / "export.json"
    if not report.exists():
        shutil.rmtree(folder, ignore_errors=True)
        run = run_command([python, str(SCRIPTS / "openvino_export.py"), work.model, str(folder)], os.environ | peer_environment())
        report.write_text(run.output.splitlines()[-1])
    notes = {"export_s": round(json.loads(report.read_text())["seconds"], 1)}
    script = str(SCRIPTS / "sentence_transformers_peer.py")
    return [
        Variant(
            f"batches of {batch}",
            work.dtype,
            [python, script, *work.arguments(str(folder), work.dtype), "openvino", str(batch)],
            notes=notes,
        )
        for batch in BATCH_SIZES
    ]


def ray_data(work: Work) -> list[Variant]:
    return [ray_graph(work, "ray_data_peer.py", 256)]


def ray_data_llm(work: Work) -> list[Variant]:
    """Variants whose rate comes from the walls of two corpora.

    A clock behind the engine would get no core until the engine has ended."""
    return [
        replace(ray_graph(work, script, batch), fewer=ray_graph(work.third(), script, batch).command, notes={"rate": "from walls"})
        for script, batch in (("ray_data_llm_peer.py", 32), ("ray_data_llm_peer.py", 128))
    ]


def ray_graph(work: Work, script: str, batch: int) -> Variant:
    command = [sys.executable, str(SCRIPTS / script), *work.arguments(work.model, work.dtype), str(batch)]
    return Variant(f"batches of {batch}", work.dtype, command, env={"PYTHONPATH": str(peer_environments.ray_data())})


PEERS: dict[str, Callable[[Work], list[Variant]]] = {
    "sentence-transformers": sentence_transformers,
    "sentence-transformers, OpenVINO": openvino,
    "Ray Data": ray_data,
    "Ray Data LLM": ray_data_llm,
}
