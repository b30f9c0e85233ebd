"""Tuning: the search on hosts that are written down, the measuring on a device of known speed, the command on the simulated engine."""

from __future__ import annotations

import itertools
import signal
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bulkembed import stopping
from bulkembed.config.run_config import RunConfig
from bulkembed.config.sections import EngineConfig
from bulkembed.config.toml_files import merge
from bulkembed.embedding import throughput
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import BulkembedError, InterruptedRun
from bulkembed.report import model_text
from bulkembed.runs.job import Job
from bulkembed.tuning import search, session
from bulkembed.tuning.search import Changes, Trial
from tests.support.commands import SIMULATED, in_process
from tests.support.corpora import write_corpus
from tests.support.models import MODEL, recipe

NEVER = 1e12


@example([[search.MIN_GAIN], [search.MIN_GAIN]])  # the margin itself is noise, and its square is rounded
@given(st.lists(st.lists(st.floats(0.5, 2), min_size=1, max_size=3), min_size=1, max_size=4))
def test_the_search_comes_within_its_margin_of_a_grid(factors: list[list[float]]) -> None:
    axes = [(f"axis {n}", [{f"key{n}": str(k)} for k in range(len(options))]) for n, options in enumerate(factors)]

    def rate_of(changes: Changes) -> float:
        return 1000 * float(np.prod([factors[int(key[3:])][int(value)] for key, value in changes.items()]))

    trials = list(search.search_settings(axes, lambda changes: Trial(changes, rate_of(changes)), NEVER))
    grid = itertools.product(*([{}, *options] for _, options in axes))
    best = max(rate_of({key: value for change in point for key, value in change.items()}) for point in grid)
    assert search.best_of(trials)[1].rate >= best / search.MIN_GAIN ** len(axes) * (1 - 1e-9)
    assert not search.untried(axes, trials)


def test_a_failed_setting_is_passed_over_and_noise_is_not_believed() -> None:
    rates = iter([100.0, 0.0, 130.0, 100.0, 125.0])  # as configured, failed, better, and both once more
    trials = list(search.search_settings([("a", [{"x": 1}, {"x": 2}])], lambda changes: Trial(changes, next(rates)), NEVER))
    assert [trial.changes for trial in trials] == [{}, {"x": 1}, {"x": 2}, {}, {"x": 2}]
    assert search.best_of(trials) == (Trial({}, 100), Trial({"x": 2}, 125))
    rates = iter([100.0, 130.0, 103.0, 99.0])  # lucky
    lucky = list(search.search_settings([("a", [{"x": 1}])], lambda changes: Trial(changes, next(rates)), NEVER))
    assert search.best_of(lucky)[1].changes == {}


def test_nothing_is_tried_on_where_the_configured_settings_fail() -> None:
    assert len(list(search.search_settings([("a", [{"x": 1}])], lambda changes: Trial(changes, 0, "no memory"), NEVER))) == 1


def test_the_search_ends_in_time_and_names_what_it_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("bulkembed.tuning.search.time.monotonic", lambda: now)

    def measure(changes: Changes) -> Trial:
        nonlocal now
        now += 10
        return Trial(changes, 100 + len(changes) * 10)  # every axis wins, so that two more are to come

    axes: list[search.Axis] = [(f"axis {n}", [{f"key{n}": 1}]) for n in range(50)]
    trials = list(search.search_settings(axes, measure, 100))
    assert now == 100
    assert search.untried(axes, trials) == [name for name, _ in axes[7:]]
    first, best = search.best_of(trials)
    told = model_text.tuned_text(trials, first, best, search.untried(axes, trials))
    assert "took up to 10 s; --budget gives more): axis 7, axis 8" in told


@pytest.mark.parametrize("call_tokens", [2000, 100_000])
def test_the_rate_is_that_of_the_device(call_tokens: int) -> None:
    documents = [np.full(1 + n % 300, n, np.int32) for n in range(1000)]
    found = throughput.measure_rate(documents, call_tokens, SimulatedEmbedder(8, 100_000), seconds=1)
    assert 50_000 < found <= 100_500


@given(st.lists(st.integers(1, 500), min_size=1), st.integers(16, 5000))
def test_calls_hold_every_document_once_and_about_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, np.int64)
    found = throughput.cut_calls(sizes, budget)
    assert sorted(np.concatenate(found).tolist()) == list(range(len(lengths)))
    assert all(sizes[call].sum() <= budget + max(lengths) for call in found)


@pytest.mark.parametrize(
    "axes", [search.cpu_axes({0, 1, 2, 3, 4, 5, 6, 7}, "bfloat16"), search.cpu_axes({3}, "float32"), search.gpu_axes(8)]
)
def test_every_setting_is_one_that_a_run_takes(axes: list[search.Axis]) -> None:
    for _, options in axes:
        for option in options:
            table: dict[str, Any] = tomllib.loads(search.toml(option))["engine"]
            EngineConfig.model_validate(merge(EngineConfig().model_dump(), table))
            assert table == option


@pytest.mark.usefixtures("ray_here")
def test_tune_writes_settings_that_a_run_takes(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in")
    # One setting, and time for it on any host: which trials a short budget has time for depends on the load.
    monkeypatch.setattr(search, "cpu_axes", lambda cores, dtype: [("step tokens", [{"step_tokens": 4096}])])
    flags = ["--source", tmp_path / "in", "--model", qwen, *SIMULATED]
    tuned = in_process("tune", *flags, "--budget", 250, "--documents", 50, "--write", tmp_path / "tuned.toml")
    assert tuned.returncode == 0, tuned.stderr
    assert "50 documents" in tuned.stdout
    assert "as configured" in tuned.stdout
    assert "step_tokens=" in tuned.stdout
    done = in_process("run", *flags, "--output", tmp_path / "out", "--config", tmp_path / "tuned.toml")
    assert done.returncode == 0, done.stderr
    again = in_process("tune", *flags, "--write", tmp_path / "tuned.toml")
    assert (again.returncode, "is there already" in again.stderr) == (2, True)


def test_a_signal_is_no_problem_of_the_setting_that_is_measured(monkeypatch: pytest.MonkeyPatch, stop: stopping.Stop) -> None:
    """Not even where Ray's processes had the same signal, and an actor is lost by it."""
    cfg = RunConfig(source="in", output="out", model="m")
    job = Job(cfg, MODEL, recipe(cfg), Any)
    host = session.Host(job, [], [])
    monkeypatch.setattr("bulkembed.tuning.session.ray_executor", broken_engine)
    assert host.measure({}, 1) == Trial({}, 0, "an actor is lost")
    stop.request(signal.SIGTERM)
    with pytest.raises(InterruptedRun):
        host.measure({}, 1)


def broken_engine(*_: object, **__: object) -> None:
    raise BulkembedError("an actor is lost")
