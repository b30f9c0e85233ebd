"""Small runs by the command line, and processes of them."""

from __future__ import annotations

import contextlib
import io
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

from bulkembed.cli import app
from bulkembed.config import credentials
from tests.support.processes import ROOT, wait_until

SIMULATED = ("--set", "engine.kind=simulated", "--set", "shards.max_rows=20", "--max-tokens", "64", "--set", "ray.num_cpus=2")


def job(tmp_path: Path, model: str, *more: object) -> list[object]:
    """A small run. `more` stands instead of its own options and settings of the same names: nothing may be given twice."""
    usual = ["--source", tmp_path / "in", "--output", tmp_path / "out", "--model", model, "--keep-column", "lang", *SIMULATED]
    given = {str(part).partition("=")[0] for part in more}
    kept = [(name, value) for name, value in zip(usual[::2], usual[1::2], strict=True) if key_of(name, value) not in given]
    return ["run", *(part for pair in kept for part in pair), *more]


def key_of(option: object, value: object) -> str:
    return str(value).partition("=")[0] if option == "--set" else str(option)


def in_process(*arguments: object, defaults: Mapping[str, Any] | None = None) -> subprocess.CompletedProcess[str]:
    """The command line in this process, which saves a second of imports: its exit code and what it prints.

    With the fixture `ray_here`, its runs use this process's Ray."""
    words = [str(argument) for argument in arguments]
    out, err = io.StringIO(), io.StringIO()
    with mock.patch.object(credentials.hidden_texts, "texts", set()), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            app.main(words, defaults)
        except SystemExit as ended:
            code = ended.code
    return subprocess.CompletedProcess(words, int(code or 0), out.getvalue(), err.getvalue())


def start(arguments: list[object]) -> subprocess.Popen[str]:
    """A command as a process of its own, in a session of its own."""
    command = [sys.executable, "-m", "bulkembed", *(str(argument) for argument in arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)


def wait_for_receipts(output: Path, count: int, *processes: subprocess.Popen[str]) -> list[Path]:
    """Waits until the runs have finished `count` shards: the paths of their receipts.

    One of several runs may end early: it leaves its line to another that is under way."""

    def receipts() -> list[Path]:
        return list(output.glob("_meta/receipts/*/*.json"))

    def are_there() -> bool:
        if len(receipts()) >= count:
            return True
        assert any(process.poll() is None for process in processes), "the runs ended before they could be disturbed"
        return False

    wait_until(are_there, f"{count} receipts")
    return receipts()
