"""What may travel to a cluster, and what goes with it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from bulkembed.config import sent_command
from bulkembed.errors import ConfigError
from jobs import submit


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["run", "--config", "none.toml"], "--config none.toml: No such file"),
        (["run", "--config"], "--config: needs a file"),
        (["run", "--set", "storage.secret=hunter2"], "--set storage.secret: everybody who sees"),
        (["run", "--set=engine.env={KEY = 'hunter2'}"], "--set engine.env: everybody who sees"),
        (["run", "--source", "s3://me:hunter2@corpus/docs"], "source: holds credentials"),
        (["feed", "--feed", "s3://me:hunter2@corpus/feed"], "feed: holds credentials"),
        (["forget", "--ids=s3://me:hunter2@corpus/ids"], "ids: holds credentials"),
        (["run", "--set", "output='s3://me:hunter2@corpus/docs'"], "output: holds credentials"),
    ],
)
def test_what_must_not_be_submitted(command: list[str], message: str) -> None:
    options = submit.parser().parse_args(["--address", "http://127.0.0.1:1", "--", *command])
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}") as caught:
        submit.carry_out(options)
    assert caught.value.exit_code == 2
    assert "hunter2" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        ["run", "--source", "in"],
        ["run", "--set", "output=~/out"],
        ["run", "--model=./model"],
        ["tune", "--write", "engine.toml"],
        ["run", "--set", 'source=["s3://a/b", "c"]'],
        ["run", "--config", "{}/run.toml"],
    ],
)
def test_a_place_of_this_machine_alone_does_not_travel(tmp_path: Path, given: list[str]) -> None:
    (tmp_path / "run.toml").write_text('source = ["s3://a/b", "file:in"]')
    with pytest.raises(ConfigError, match="is not the same on the cluster; give an absolute path there, or a URI"):
        sent_command.refuse_relative([part.format(tmp_path) for part in given])
    (tmp_path / "run.toml").write_text('source = "s3://a/b"\nmodel = "Qwen/Qwen3-Embedding-4B"')
    sent_command.refuse_relative(["run", "--config", f"{tmp_path}/run.toml", "--output", "/mnt/out"])
    sent_command.refuse_relative(["run", "--text-column", "source", "--keep-column", "output", "--id-column", "model"])


def test_only_the_configuration_files_travel(tmp_path: Path) -> None:
    here, folder = tmp_path / "here", tmp_path / "sent"
    for path in (here / "a" / "run.toml", here / "b" / "run.toml", here / "pipeline.py"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(str(path))
    folder.mkdir()
    given = ["run", "--config", f"{here}/a/run.toml", f"--config={here}/b/run.toml", "--prompt", "two words"]
    sent = sent_command.pack_configs(given, folder)
    assert sent == ["run", "--config", "1-run.toml", "--config=2-run.toml", "--prompt", "two words"]
    assert {path.name: path.read_text() for path in folder.iterdir()} == {
        "1-run.toml": f"{here}/a/run.toml",
        "2-run.toml": f"{here}/b/run.toml",
    }
    assert shlex.split(submit.submission(sent, folder, 25, "")["entrypoint"]) == ["python", "-m", "bulkembed", *sent]


@pytest.mark.parametrize(
    ("given", "seconds"),
    [
        ([], 25),
        (["--config", "{}"], 40),
        (["--grace-seconds=7.5", "--config", "{}"], 7.5),
        (["--set", "grace_seconds=8"], 8),
        (["--grace-seconds", "soon"], 25),
    ],
)
def test_the_grace_is_that_of_the_run(tmp_path: Path, given: list[str], seconds: float) -> None:
    (tmp_path / "run.toml").write_text("grace_seconds = 40\n")
    assert sent_command.grace_seconds(["run", *(part.format(tmp_path / "run.toml") for part in given)]) == seconds
