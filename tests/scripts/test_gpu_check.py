"""The GPU check without a GPU: its arithmetic, and every row's code once with tiny shapes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from scripts.gpu import command, flops, plan, table, timeline, watch
from scripts.gpu.plan import Group, Row
from scripts.samples.random_qwen3 import SHAPES
from tests.support.processes import PATIENCE, wait_until

TINY = {
    "hidden_size": 4,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
    "intermediate_size": 16,
}


def test_flops_are_two_for_each_weight_and_token_and_those_of_causal_attention() -> None:
    weights = 3 * (4 * 2 * 8 + 2 * 4 * 8 + 2 * 8 * 4 + 3 * 4 * 16)
    assert flops.matrix_weights(TINY) == weights
    one_by_one = sum(2 * 2 * position * 2 * 8 * 3 for length in (1, 5) for position in range(1, length + 1))
    assert flops.flops(TINY, np.array([1, 5])) == 2 * weights * 6 + one_by_one


@pytest.mark.parametrize(("shape", "billions"), [("0.6B", 0.44), ("4B", 3.63), ("8B", 6.95)])
def test_weights_are_those_of_the_shapes_without_their_embedding(shape: str, billions: float) -> None:
    assert flops.matrix_weights(SHAPES[shape]) == pytest.approx(billions * 1e9, rel=0.01)


def test_a_row_brings_the_models_that_it_needs() -> None:
    def names(*asked: str) -> list[str]:
        return [row.name for group in plan.groups_with(asked) for row in group.rows]

    assert names("gemm") == ["gemm"]
    assert names("engine-8k") == ["models", "engine-8k"]
    assert names("engine-8B", "gemm") == ["gemm", "models", "models-8B", "engine-8B"]
    assert names(*plan.NAMES) == list(plan.NAMES)


def test_estimates_learn_within_bounds_from_rows_of_the_same_kind() -> None:
    estimates = plan.Estimates()
    warm, other = plan.row_of("start-warm"), plan.row_of("start-plan")
    estimates.learn(warm, warm.seconds * 2)
    assert estimates.of(other) == 2 * other.seconds
    estimates.learn(warm, warm.seconds * 100)
    assert estimates.of(other) == 3 * other.seconds
    assert estimates.of(plan.row_of("job")) == plan.row_of("job").seconds


def test_the_first_row_of_an_engine_has_the_time_to_load_it() -> None:
    (_, engine) = plan.groups_with(["engine-8k", "engine-16k"])
    assert [row.seconds for row in engine.rows] == [plan.row_of("start-cold").seconds + 7, 7]


def test_what_its_time_does_not_allow_is_left_out_and_named(tmp_path: Path) -> None:
    out, work = tmp_path / "out", tmp_path / "work"
    out.mkdir()
    work.mkdir()
    check = command.Check("cuda", work, out, 1, time.time() + 10)
    command.measure(check, [Group("slow", "job", (Row("job", 20),)), Group("slower", "peer", (Row("sentence-transformers", 30),))])
    found = table.read(out / "rows.jsonl")
    assert [row["row"] for row in found] == ["job", "sentence-transformers"]
    assert all("needs about" in row["skipped"] for row in found)


def test_a_later_run_on_the_same_host_knows_what_an_earlier_one_measured(tmp_path: Path) -> None:
    work, ceilings = tmp_path / "work", {"row": "gemm", "bf16_tflops": 800.0, "fp8_tflops": 1400.0, "bf16": {"layer_8192": 800.0}}
    for number, row in enumerate((ceilings, {"row": "engine-8k", "tflops": 600.0})):
        out = tmp_path / str(number)
        for folder in (work, out):
            folder.mkdir(exist_ok=True)
        command.Check("cuda", work, out, 1, 0, known=command.read_known(work)).write(row)
    assert [found["share_of_gemm"] for found in table.read(tmp_path / "1" / "rows.jsonl")] == [0.75]


def test_a_child_that_dies_or_hangs_costs_its_own_rows_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ways = {"dies": "os._exit(7)", "hangs": "time.sleep(60)", "works": "print(json.dumps({'row': 'works'}), file=out, flush=True)"}
    real = subprocess.Popen

    def started(arguments: list[str], **settings: Any) -> Any:
        name = json.loads(arguments[4])["groups"][0]["name"]
        code = f"import json, os, time; out = os.fdopen({arguments[3]}, 'w'); {ways[name]}"
        return real([sys.executable, "-c", code], **settings)

    monkeypatch.setattr(subprocess, "Popen", started)
    monkeypatch.setattr(plan, "ROW_PATIENCE", (1, 0.0))
    groups = [Group(name, "job", (Row(name, 1 if name == "hangs" else PATIENCE),)) for name in ways]
    work = tmp_path / "work"
    work.mkdir()
    check = command.Check("cuda", work, tmp_path, 1, time.time() + 2 * PATIENCE)
    command.measure(check, groups)
    found = {row["row"]: row for row in table.read(tmp_path / "rows.jsonl")}
    assert "ended with 7" in found["dies"]["error"]
    assert "time was over" in found["hangs"]["error"]
    assert not table.is_open(found["works"])


def test_a_childs_watch_of_its_parent_leaves_forked_processes_alone() -> None:
    """On a GPU host vLLM forks its core; one that waits for a lock of the watching thread hangs for ever."""
    code = (
        "import multiprocessing, time; from scripts.gpu.child import end_with_parent; end_with_parent(); time.sleep(0.5); "
        "core = multiprocessing.get_context('fork').Process(target=int); core.start(); core.join(120); print(core.exitcode, flush=True); "
        "core.kill()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "0\n"


def test_rates_get_their_share_of_the_cards_own() -> None:
    ceilings = {"row": "gemm", "bf16_tflops": 800.0, "fp8_tflops": 1400.0, "bf16": {"layer_8192": 700.0, "layer_32768": 750.0}}
    found = table.with_share({"row": "engine-8k", "tflops": 600.0}, {"gemm": ceilings})
    assert (found["share_of_gemm"], found["share_of_layer_gemm"]) == (0.75, 0.8)
    assert table.with_share({"row": "fp8", "tflops": 700.0, "quantization": "fp8"}, {"gemm": ceilings})["share_of_fp8_gemm"] == 0.5
    failed = {"row": "gemm", "error": "no"}
    assert table.with_share({"row": "engine-8k", "tflops": 600.0}, {"gemm": failed}) == {"row": "engine-8k", "tflops": 600.0}


def test_the_table_keeps_what_was_measured_and_names_what_is_open(tmp_path: Path) -> None:
    first = [
        {"row": "machine", "card": "H100", "commit": "abc"},
        {"row": "engine-8k", "shape": "4B", "share_of_gemm": 0.8, "tokens_per_s": 70123},
    ]
    second = [{"row": "engine-8k", "error": "out of memory"}, {"row": "start-warm", "start_s": 40.0}, {"row": "fp8", "skipped": "no time"}]
    for number, rows in enumerate((first, second)):
        (tmp_path / f"{number}").write_text("".join(json.dumps(row) + "\n" for row in rows) + '{"row": "cut o')
    found = table.markdown([table.read(tmp_path / "0"), table.read(tmp_path / "1")])
    assert "card H100, commit abc" in found
    assert "| engine-8k | 4B | share_of_gemm 0.8, tokens_per_s 70,123 |" in found
    assert "| 4B over the GPU's GEMM rate, best step | at least 0.75 | 0.8 |" in found
    assert "| warm start of an engine, seconds | below 25 | 40: missed |" in found
    assert "- fp8: no time" in found
    assert "- job: not asked for" in found


def test_a_cards_memory_clock_and_power_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    for printed, found in (("2048, 1980, 650.5", (2048 * 2**20 / 1e9, 1980.0, 650.5)), ("No devices were found", None)):
        tool.write_text(f"#!/bin/sh\necho '{printed}'\n")
        tool.chmod(0o755)
        assert watch.gpu() == found


def test_the_parts_of_a_start_come_from_the_engines_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text(
        f"100.000 1 INFO {timeline.PROCESS_BEGINS}\n"
        f"101.000 1 INFO {timeline.LOG_BEGINS}\n"
        "105.000 1 INFO core.py:1 Initializing\nwith more lines\n"
        "112.500 2 INFO default_loader.py:501 Loading weights took 2.25 seconds\n"
        "113.000 2 INFO core.py:386 init engine (profile, create kv cache, warmup model) took 8.50 s (compilation: 3.00 s)\n"
    )
    lines = timeline.read(log)
    assert timeline.timers(lines) == {"weights_s": 2.25, "init_engine_s": 8.5}
    longest = max(timeline.gaps(lines, 100, 113), key=lambda gap: float(gap["seconds"]))
    assert (longest["at_s"], longest["seconds"]) == (5.0, 7.5)
    assert timeline.processes(lines, 99)[0] == {"process_begins_s": 1.0, "imported_s": 2.0, "first_line_s": 6.0, "last_line_s": 6.0}
    assert abs(timeline.process_began() - psutil.Process().create_time()) < 2


def test_rows_survive_a_kill_and_children_do_not(tmp_path: Path) -> None:
    rows = tmp_path / "out" / "rows.jsonl"
    arguments = [
        sys.executable,
        "-m",
        "scripts.gpu.command",
        "--dry",
        "--rows",
        "gemm,models",
        "--out",
        str(tmp_path / "out"),
        "--work",
        str(tmp_path),
    ]
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL)
    wait_until(lambda: rows.exists() and "gemm" in rows.read_text(), "a row")
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    assert [row["row"] for row in table.read(rows)][:2] == ["machine", "gemm"]
    assert not psutil.wait_procs(children, timeout=PATIENCE)[1]


@pytest.mark.engine
@pytest.mark.ray
@pytest.mark.timeout(1200)  # 60 s on a quiet host
def test_every_row_runs_without_a_gpu(tmp_path: Path) -> None:
    env = os.environ | {"PYTHON": sys.executable}
    ran = subprocess.run(
        ["scripts/gpu_check", "--dry", "--out", tmp_path, "--minutes", "18"],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=1140,
    )
    assert ran.returncode == 0, ran.stderr
    found = {row["row"]: row for row in table.read(tmp_path / "rows.jsonl")}
    assert set(found) == {"machine", *plan.NAMES}
    assert not [row for row in found.values() if table.is_open(row)]
    assert found["direct"]["core"] == "SyncMPClient"  # as on a GPU host: the core is a process of its own
    assert found["direct"]["largest_difference"] < 1e-3
    assert found["cosine"]["cosine_min"] > 0.999
    assert not found["start-warm"]["checks_failed"]
    assert "rows:" in ran.stdout
