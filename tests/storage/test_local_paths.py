"""Names of local places mean the same in every process."""

from __future__ import annotations

from pathlib import Path

import pytest

from bulkembed.config.toml_files import load
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.errors import ConfigError
from bulkembed.runs.lookup import open_job
from bulkembed.storage.local_paths import absolute_model, absolute_place
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import on_ray, read_dataset, simulated


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, which is the home folder too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize(
    "spelled", ["in", "./in", "in/", "~/in", "file:in", "file://~/in", "local://in", "file:{}/in", "file://{}/in", "{}/in"]
)
def test_a_local_place_has_one_spelling(here: Path, spelled: str) -> None:
    assert absolute_place(spelled.format(here)) == f"{here}/in"


@pytest.mark.parametrize("uri", ["s3://bucket/~/in", "memory://in", "simplecache::s3://bucket/in", "", " "])
def test_other_uris_stay(uri: str) -> None:
    assert absolute_place(uri) == uri


@pytest.mark.parametrize("uri", ["s3:/bucket/out", "S3:/bucket", "https:/host/a.jsonl", "s3n:/bucket"])
def test_a_scheme_that_lacks_a_slash_is_no_folder(here: Path, uri: str) -> None:
    with pytest.raises(ConfigError, match="a slash is missing"):
        load(None, {"source": "in", "output": uri, "model": "m"})
    (here / uri).mkdir(parents=True)
    assert absolute_place(uri) == f"{here}/{uri}"  # a path that exists is that path


@pytest.mark.parametrize("uri", ["http://[::1", "https://host:99999/a", "http://", "https:///a", "HTTP://host:0/a"])
def test_a_web_address_without_a_usable_host_is_refused(here: Path, uri: str) -> None:
    with pytest.raises(ValueError, match="no usable host or port"):
        absolute_place(uri)
    assert absolute_place("http://[::1]:80/a") == "http://[::1]:80/a"


def test_globs_and_dots_stay(here: Path) -> None:
    assert absolute_place("a/../*.jsonl") == f"{here}/a/../*.jsonl"


def test_a_folder_is_a_folder_also_where_it_looks_like_a_hub_name(here: Path) -> None:
    assert absolute_model("org/name") == "org/name"
    (here / "org" / "name").mkdir(parents=True)
    assert absolute_model("org/name") == absolute_model("~/org/name") == f"{here}/org/name"


def test_a_home_that_nobody_knows_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless(path: Path) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "expanduser", homeless)
    with pytest.raises(ConfigError, match="begins with ~, but no home folder is known here"):
        load(None, {"source": "~/in", "output": "/out", "model": "m"})


def test_a_current_folder_that_is_gone_is_an_error(here: Path) -> None:
    here.rmdir()
    with pytest.raises(ConfigError, match="is relative, but the current folder is gone"):
        load(None, {"source": "in", "output": "/out", "model": "m"})


def test_an_output_in_the_source_is_refused_however_it_is_spelled(here: Path, qwen: str) -> None:
    write_corpus(here / "in", files=1)
    for source, output in [("~/in", f"{here}/in/out"), (f"{here}/in", "~/in/out"), ("in", "file:in/out")]:
        with pytest.raises(ConfigError, match="lie inside one another"):
            open_job(simulated(source, output, qwen))


@pytest.mark.usefixtures("ray_session")
def test_workers_that_were_started_elsewhere_use_the_drivers_places(here: Path, qwen: str) -> None:
    written = write_corpus(here / "in", files=1)
    (here / "org").mkdir()
    (here / "org" / "name").symlink_to(qwen)
    on_ray(simulated("in", "~/out", "org/name")).require_complete()
    assert read_dataset(here / "out").num_rows == len(written)
    assert newest_dataset(Store(), str(here / "out"))[1].provenance["model"] == f"{here}/org/name"
