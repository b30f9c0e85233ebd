"""The entry points for schedulers, and the cluster file."""

from __future__ import annotations

import io
import json
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any
from unittest import mock

import jsonschema
import pytest
import ray.autoscaler
import yaml

from bulkembed.config.run_config import RunConfig
from jobs import nightly_backfill, reindex_corpus
from tests.support.commands import in_process
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.processes import PATIENCE, ROOT
from tests.support.runs import here, read_dataset


def module(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=PATIENCE)


@pytest.fixture
def config(tmp_path: Path, qwen: str) -> Path:
    write_corpus(tmp_path / "in", files=2)
    path = tmp_path / "run.toml"
    path.write_text(
        f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\n'
        'max_tokens = 64\n[engine]\nkind = "simulated"\n[shards]\nmax_rows = 30\n'
    )
    return path


def night(config: Path, *more: str, **environment: str) -> tuple[int, dict[str, Any]]:
    """The nightly job in this process: its exit code and its line."""
    done = in_process(*nightly_backfill.arguments([*more], environment or {"BULKEMBED_CONFIG": str(config)}))
    assert done.stdout.count("\n") == 1, done.stdout
    return done.returncode, json.loads(done.stdout)


def test_nightly_backfill_embeds_what_changed(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    assert night(config, "--run-key", "monday")[1]["embedded"] == 100
    write_jsonl(tmp_path / "in" / "tonight.jsonl", [{"id": 5, "text": "new tonight"}])
    before = sorted(tmp_path.glob("out/**/*"))
    code, line = night(config, "--dry-run")
    assert (code, line["embedded"], line["added"], line["changed"], line["deleted"], line["snapshot"]) == (0, 1, 1, 0, 0, None)
    assert sorted(tmp_path.glob("out/**/*")) == before, "a dry run writes nothing"
    code, line = night(config, "--run-key", "tuesday")
    assert (code, line["embedded"], line["documents"], line["snapshot"], line["parent"]) == (0, 1, 101, 2, 1)
    assert read_dataset(tmp_path / "out").num_rows == 101


def test_a_dry_run_of_a_large_source_is_exact(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkembed.runs.lookup.MAX_BYTES_HERE", 1)
    write_jsonl(tmp_path / "in" / "twice.jsonl", [{"id": 5, "text": "twice"}, {"id": 6, "text": "twice"}, {"id": 7, "text": ""}])
    code, line = night(config, "--dry-run")
    assert (code, line["embedded"], line["added"], line["duplicates"], line["rejected"]) == (0, 101, 102, 1, 1)
    assert not (tmp_path / "out").exists()


def test_a_repeat_of_a_run_key_is_a_process_without_ray_of_under_three_seconds(
    tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    night(config, "--run-key", "monday")
    write_jsonl(tmp_path / "in" / "tonight.jsonl", [{"id": 5, "text": "new tonight"}])
    done = module("nightly_backfill", "--run-key", "monday", BULKEMBED_CONFIG=str(config))  # no test without a mark finds a Ray
    assert done.returncode == 0, done.stderr
    line = json.loads(done.stdout)
    assert (line["snapshot"], line["embedded"], line["error"]) == (1, 0, None)
    assert line["seconds"] < 3
    assert done.stderr
    for each in done.stderr.splitlines():
        assert not each.strip() or re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ", each), each


def test_lines_begin_with_their_time_however_they_are_written() -> None:
    stream = io.StringIO()
    timed = nightly_backfill.TimedLines(stream)
    for part in ("a", "b\n", "c\nd", "\n\n", "", "  e\n"):
        timed.write(part)
    texts = [re.sub(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00 ", "@", line) for line in stream.getvalue().splitlines()]
    assert texts == ["@ab", "@c", "@d", "", "@  e"]


def test_the_teams_keys_lie_below_files_and_options(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    team = nightly_backfill.NightlyConfig(
        source="/no/such", require=("_SUCCESS",), max_deletes=0.01, more={"dims": [32], "shards": {"max_rows": 7, "text_mib": 9}}
    )
    assert set(team.keys()) == {"source", "require", "max_deletes", "dims", "shards"}
    assert nightly_backfill.NIGHTLY.keys() == {}
    seen: list[RunConfig] = []
    monkeypatch.setattr("bulkembed.api.run", lambda cfg, *_: seen.append(cfg))
    done = in_process(*nightly_backfill.arguments(["--config", str(config), "--max-deletes", "5"], {}), defaults=team.keys())
    assert done.returncode == 0, done.stderr
    (cfg,) = seen
    assert (cfg.source_text, cfg.require, cfg.max_deletes, cfg.dims) == (f"{tmp_path}/in", ("_SUCCESS",), 5, (32,))
    assert (cfg.shards.max_rows, cfg.shards.text_mib) == (30, 9)
    wrong = in_process("run", "--config", config, defaults=nightly_backfill.NightlyConfig(more={"dimss": 3}).keys())
    assert (wrong.returncode, "dimss: unknown key; did you mean dims?" in wrong.stderr) == (2, True)


def test_reindex_shows_its_plan_until_it_is_told_yes(tmp_path: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    asked = in_process(*reindex_corpus.arguments(["--config", str(config), "--dims", "32", "--publish"]))
    assert asked.returncode == 0, asked.stderr
    assert not (tmp_path / "out").exists()
    night(config)
    done = in_process(*reindex_corpus.arguments(["--yes", "--publish", "--config", str(config), "--dims", "32"]))
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("current: snapshot 2: 100 documents\n")
    assert read_dataset(tmp_path / "out")["embedding"].type.list_size == 32


@pytest.mark.parametrize(
    ("given", "environment", "wanted"),
    [
        ([], {"BULKEMBED_CONFIG": "a.toml"}, ["--config", "a.toml"]),
        ([], {"BULKEMBED_CONFIG": "a.toml:b.toml"}, ["--config", "a.toml", "--config", "b.toml"]),
        (["--config=b.toml"], {"BULKEMBED_CONFIG": "a.toml"}, ["--config=b.toml"]),
        (["--limit", "3"], {}, ["--limit", "3"]),
    ],
)
def test_nightly_arguments(given: list[str], environment: dict[str, str], wanted: list[str]) -> None:
    assert nightly_backfill.arguments(given, environment) == ["run", "--json", *wanted]


def test_reindex_arguments() -> None:
    assert reindex_corpus.arguments(["--dims", "32", "--json"]) == ["plan", "--dims", "32"]
    assert reindex_corpus.arguments(["--dims", "32", "--yes", "--publish"]) == ["reindex", "--dims", "32", "--publish"]


@pytest.mark.parametrize(("job", "words"), [("nightly_backfill", "BULKEMBED_CONFIG"), ("reindex_corpus", "--yes")])
def test_help_of_a_job_says_what_the_job_adds(
    job: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [job, "-h"])
    with mock.patch("bulkembed.__main__.main"):
        runpy.run_path(str(ROOT / "jobs" / f"{job}.py"), run_name="__main__")
    assert words in capsys.readouterr().out


def test_the_cluster_file_passes_rays_own_schema() -> None:
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    jsonschema.validate(cluster, schema)
    assert cluster["head_node_type"] in cluster["available_node_types"]


def test_the_cluster_file_has_a_token_a_profile_and_spot_workers_and_a_head_without_cores() -> None:
    """What its comments and docs/operations.md say."""
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    starts = [each for key in ("head", "worker") for each in cluster[f"{key}_start_ray_commands"] if "ray start" in each]
    assert len(starts) == 2
    assert all(each.startswith("RAY_AUTH_MODE=token ray start") for each in starts)
    assert cluster["file_mounts"]["/home/ubuntu/.ray/auth_token"] == "~/.ray/auth_token"
    assert any("chmod 600 ~/.ray/auth_token" in each for each in cluster["setup_commands"])
    kinds = cluster["available_node_types"]
    assert all("instance-profile/" in kind["node_config"]["IamInstanceProfile"]["Arn"] for kind in kinds.values())
    assert kinds["gpu_worker"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert kinds["head"]["resources"]["CPU"] == 0, "else the model may land on the head's cores"
    assert "--dashboard-host=127.0.0.1" in starts[0]


def test_every_extra_of_a_clusters_hosts_brings_the_jobs_api() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("cluster", "cpu", "gpu"):
        assert any(each.startswith("ray[default]") for each in project[extra])
    assert "bulkembed[gpu]" in (ROOT / "cluster.yaml").read_text()
