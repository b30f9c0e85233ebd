"""The entry points for schedulers, and the cluster file."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from unittest import mock

import jsonschema
import pytest
import ray.autoscaler
import yaml

from jobs import nightly_backfill, reindex_corpus
from tests.support.commands import in_process
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.processes import ROOT
from tests.support.runs import read_dataset


def module(name: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "jobs" / f"{name}.py"), *(str(argument) for argument in arguments)]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=280)


@pytest.fixture
def config(tmp_path: Path, qwen: str) -> Path:
    write_corpus(tmp_path / "in", files=2)
    path = tmp_path / "run.toml"
    path.write_text(
        f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\n'
        'max_tokens = 64\n[engine]\nkind = "simulated"\n[shards]\nmax_rows = 30\n'
    )
    return path


@pytest.mark.usefixtures("shared_ray", "ray_here")
def test_nightly_backfill_embeds_what_changed(tmp_path: Path, config: Path) -> None:
    first = module("nightly_backfill", BULKEMBED_CONFIG=str(config))
    assert first.returncode == 0, first.stderr
    write_jsonl(tmp_path / "in" / "tonight.jsonl", [{"id": 5, "text": "new tonight"}])
    second = in_process(*nightly_backfill.arguments(["--config", str(config)], {}))
    assert second.returncode == 0, second.stderr
    assert "1/1 shards  1 documents" in second.stdout
    assert read_dataset(tmp_path / "out").num_rows == 101


@pytest.mark.usefixtures("shared_ray", "ray_here")
def test_reindex_shows_its_plan_until_it_is_told_yes(tmp_path: Path, config: Path) -> None:
    asked = in_process(*reindex_corpus.arguments(["--config", str(config), "--dims", "32"]))
    assert asked.returncode == 0, asked.stderr
    assert not (tmp_path / "out").exists()
    done = module("reindex_corpus", "--yes", "--config", config, "--dims", "32")
    assert done.returncode == 0, done.stderr
    assert read_dataset(tmp_path / "out").num_rows == 100


@pytest.mark.parametrize(
    ("given", "environment", "wanted"),
    [
        ([], {"BULKEMBED_CONFIG": "a.toml"}, ["run", "--config", "a.toml"]),
        ([], {"BULKEMBED_CONFIG": "a.toml:b.toml"}, ["run", "--config", "a.toml", "--config", "b.toml"]),
        (["--config=b.toml"], {"BULKEMBED_CONFIG": "a.toml"}, ["run", "--config=b.toml"]),
        (["--limit", "3"], {}, ["run", "--limit", "3"]),
    ],
)
def test_nightly_arguments(given: list[str], environment: dict[str, str], wanted: list[str]) -> None:
    assert nightly_backfill.arguments(given, environment) == wanted


def test_reindex_arguments() -> None:
    assert reindex_corpus.arguments(["--dims", "32"])[0] == "plan"
    assert reindex_corpus.arguments(["--dims", "32", "--yes"]) == ["run", "--dims", "32"]


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


def test_every_extra_of_a_clusters_hosts_brings_the_jobs_api() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for extra in ("cluster", "cpu", "gpu"):
        assert any(each.startswith("ray[default]") for each in project[extra])
    assert "bulkembed[gpu]" in (ROOT / "cluster.yaml").read_text()
