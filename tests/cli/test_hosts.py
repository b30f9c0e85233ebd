"""What a host may lack or refuse: the command works, or it ends with one line and the right exit code, and never with a traceback."""

from __future__ import annotations

import _thread
import errno
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

from bulkembed import api
from bulkembed.cli.console import Output
from bulkembed.cluster import connect, own_ray
from bulkembed.embedding import hardware
from tests.support.commands import in_process, job
from tests.support.corpora import write_small_corpus
from tests.support.processes import PATIENCE, ROOT
from tests.support.runs import here

MAX_SECONDS = 30  # until the one line
NOBODY = "http://127.0.0.1:9"


class Host(NamedTuple):
    """A host with a small corpus in `folder / "in"`, and a copy of a model. `patched` breaks it."""

    folder: Path
    patched: pytest.MonkeyPatch

    @property
    def model(self) -> Path:
        return self.folder / "model"

    def words(self, *more: object) -> list[object]:
        """A run."""
        return job(self.folder, str(self.model), *more)

    def with_environment(self, **values: str | None) -> list[object]:
        """A run with these environment variables; None: without it."""
        for name, value in values.items():
            self.patched.setenv(name, value) if value is not None else self.patched.delenv(name, raising=False)
        return self.words()

    def with_own_ray(self, **values: str) -> list[object]:
        """A run that needs a Ray of its own."""
        self.patched.undo()
        return self.with_environment(**{"RAY_ADDRESS": ""} | values)

    def without(self, path: Path) -> list[object]:
        """A run on a host where this file or folder cannot be read, by root either."""
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        path.symlink_to(path.name)  # it leads to itself
        return self.words()

    def at(self, command: str, place: str) -> list[object]:
        """A command on a finished dataset of which a place cannot be read."""
        assert in_process(*self.words()).returncode == 0
        self.without(next((self.folder / "out").glob(place)))
        return [command, "--output", self.folder / "out"]

    def failing(self, owner: object, name: str, error: BaseException) -> list[object]:
        """A run in which a function raises."""
        self.patched.setattr(owner, name, raising(error))
        return self.words()


def raising(error: BaseException) -> Callable[..., NoReturn]:
    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


@pytest.fixture
def host(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    write_small_corpus(tmp_path / "in", files=1)
    shutil.copytree(qwen, tmp_path / "model")
    monkeypatch.setattr(connect, "is_connected", lambda: False)  # other tests of this process may have left it a Ray
    with monkeypatch.context() as without_ray:
        here(without_ray)
        yield Host(tmp_path, without_ray)


def file_of(host: Host, name: str, content: bytes = b"x") -> Path:
    (host.folder / name).write_bytes(content)
    return host.folder / name


def with_few_threads(host: Host, few: int, owner: Any, name: str) -> None:
    """Of the host's threads only a few are left. `owner`, `name`: of the function that starts one."""
    start, left = getattr(owner, name), iter(range(few))

    def limited(*arguments: object) -> None:
        if next(left, None) is None:
            raise RuntimeError("can't start new thread")
        start(*arguments)

    host.patched.setattr(owner, name, limited)


def without_threads(host: Host) -> list[object]:
    with_few_threads(host, 0, threading.Thread, "start")
    return host.words()


def with_threads_for_no_ray(host: Host) -> list[object]:
    words = host.with_own_ray()
    with_few_threads(host, 20, _thread, "start_new_thread")
    return words


def with_another_ray(host: Host) -> list[object]:
    words = host.with_own_ray()
    file_of(host, "ray.py")
    host.patched.syspath_prepend(host.folder)
    host.patched.delitem(sys.modules, "ray", raising=False)
    return words


def with_a_full_disk(host: Host) -> list[object]:
    words = host.with_own_ray()
    host.patched.setattr(own_ray.shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 20, 1 << 20, 0))  # type: ignore[attr-defined]
    return words


def in_a_folder_that_is_gone(host: Host, words: list[object]) -> list[object]:
    gone = host.folder / "gone"
    gone.mkdir()
    host.patched.chdir(gone)
    gone.rmdir()
    return words


def with_temporary_files_nowhere(host: Host) -> list[object]:
    host.patched.setattr(tempfile, "tempdir", None)
    return host.with_environment(TMPDIR="/proc/none")


def with_a_clock_of_1971(host: Host) -> list[object]:
    before = time.time
    host.patched.setattr(time, "time", lambda: before() % (365 * 86400) + 365 * 86400)
    return host.words()


def with_a_folder_that_cannot_be_listed(host: Host) -> list[object]:
    """For root as well."""
    listed = Path.iterdir

    def refused(path: Path) -> Iterator[Path]:
        if path.name == "model":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return listed(path)

    host.patched.setattr(Path, "iterdir", refused)
    return host.words()


def without_a_temporary_folder(host: Host) -> list[object]:
    host.patched.setattr(tempfile, "tempdir", None)
    host.patched.setattr(tempfile, "_candidate_tempdir_list", lambda: ["/proc/none"])
    return ["check", "--model", host.model]


def with_little_memory(host: Host) -> list[object]:
    file_of(host, "memory.max", b"104857600\n")
    host.patched.setattr(hardware, "CGROUPS", host.folder)
    host.patched.setattr(hardware, "has_gpu", lambda: False)
    return ["check", "--model", host.model]


# A host and what is run on it; the exit code; what the line says.
FAULTS: dict[str, tuple[Callable[[Host], list[object]], int, str]] = {
    "HOME is not set": (lambda host: host.with_environment(HOME=None), 0, ""),
    "HOME is no folder": (lambda host: host.with_environment(HOME="/dev/null"), 0, ""),
    "HOME is the root": (lambda host: host.with_environment(HOME="/"), 0, ""),
    "TMPDIR is not there": (with_temporary_files_nowhere, 0, ""),
    "the clock is of 1971": (with_a_clock_of_1971, 0, ""),
    "OMP_NUM_THREADS is 0": (lambda host: host.with_environment(OMP_NUM_THREADS="0"), 0, ""),
    "a proxy that is not there": (
        lambda host: host.with_environment(http_proxy=NOBODY, https_proxy=NOBODY),
        0,
        "",
    ),
    "no Ray at an address": (lambda host: host.with_own_ray(RAY_ADDRESS="127.0.0.1:1"), 2, "127.0.0.1:1"),
    "no address of a Ray": (lambda host: host.with_own_ray(RAY_ADDRESS="zzz"), 2, "ray.address: zzz is not"),
    "an address without a port": (lambda host: host.with_own_ray(RAY_ADDRESS="127.0.0.1:"), 2, "ray.address"),
    "no address of a client": (lambda host: host.with_own_ray(RAY_ADDRESS="ray://"), 2, "ray://HOST:10001"),
    "a long folder for sockets": (lambda host: host.with_own_ray(RAY_TMPDIR="/" + "long" * 30), 2, "set RAY_TMPDIR to a folder"),
    "a folder for sockets that cannot be": (lambda host: host.with_own_ray(RAY_TMPDIR="/proc/none"), 2, "cannot be written"),
    "a full folder for sockets": (with_a_full_disk, 2, "has less than 16 MiB free"),
    "another ray on the path": (with_another_ray, 2, r"ray\.py is no Ray, but Python finds it as `ray`"),
    "threads for no Ray": (with_threads_for_no_ray, 2, "more threads, and Ray needs"),
    "no threads": (without_threads, 1, "allows no more threads"),
    "an object that is lost": (
        lambda host: host.failing(api, "open_job", FileNotFoundError("bucket/out/x")),
        1,
        "bucket/out/x: is not there any more",
    ),
    "no memory": (lambda host: host.failing(api, "open_job", MemoryError()), 1, "no more memory"),
    "no memory for a library": (
        lambda host: host.failing(api, "open_job", ImportError("no pyarrow (_json.so: failed to map segment from shared object)")),
        1,
        "no more memory",
    ),
    "no open files": (lambda host: host.failing(api, "open_job", OSError(errno.EMFILE, "Too many open files")), 1, "ulimit -n"),
    "a disk that fails": (
        lambda host: host.failing(api, "open_job", OSError(errno.EIO, "Input/output error", "/x")),
        1,
        "/x: Input",
    ),
    "the folder is gone": (lambda host: in_a_folder_that_is_gone(host, host.with_own_ray()), 2, "the current folder is gone"),
    "the folder of the source is gone": (
        lambda host: in_a_folder_that_is_gone(host, host.words("--source", "in")),
        2,
        "source: is relative, but the current folder is gone",
    ),
    "a configuration that is a folder": (lambda host: host.words("--config", host.folder), 2, "Is a directory"),
    "a configuration that is not there": (lambda host: host.words("--config", host.folder / "none"), 2, "No such file"),
    "a configuration of bytes": (lambda host: host.words("--config", file_of(host, "c.toml", b"\xff")), 2, "not valid TOML"),
    "a configuration that cannot be read": (
        lambda host: [*host.without(file_of(host, "c.toml")), "--config", host.folder / "c.toml"],
        2,
        "c.toml",
    ),
    "a model that is a file": (lambda host: host.words("--model", file_of(host, "m")), 2, "neither a folder nor a hub name"),
    "an empty model": (lambda host: host.words("--model", host.folder / "in"), 2, "safetensors"),
    "a model's settings": (lambda host: host.without(host.model / "config.json"), 2, r"config\.json"),
    "a model's weights": (lambda host: host.without(host.model / "model.safetensors"), 2, "safetensors"),
    "a model's tokenizer": (lambda host: host.without(host.model / "tokenizer.json"), 2, r"tokenizer\.json"),
    "a source that is not there": (lambda host: host.words("--source", host.folder / "none"), 2, "source .*none: nothing there"),
    "a source that cannot be read": (lambda host: host.without(host.folder / "in"), 2, "a link that leads nowhere"),
    "an object that cannot be read": (lambda host: host.without(host.folder / "in/0.jsonl"), 2, r"0\.jsonl"),
    "a plan for an output that is a file": (lambda host: ["plan", *host.words("--output", file_of(host, "o"))[1:]], 2, "o is a file"),
    "a plan for an output below a file": (
        lambda host: ["plan", *host.words("--output", file_of(host, "o") / "x")[1:]],
        2,
        "output: cannot be .*o/x, since .*o is a file",
    ),
    "a model's folder": (with_a_folder_that_cannot_be_listed, 2, "model: cannot be listed: Permission denied; give"),
    "a container of little memory": (with_little_memory, 2, "needs at least .* of memory, but this host or container has"),
    "no folder for temporary files": (without_a_temporary_folder, 1, "No usable temporary directory .*; set TMPDIR to a folder"),
    "an output that is a file": (lambda host: host.words("--output", file_of(host, "o")), 2, "output: "),
    "an output below a file": (lambda host: host.words("--output", file_of(host, "o") / "x"), 2, "output: "),
    "an output that cannot be written": (lambda host: host.words("--output", "/proc/out"), 2, "output: "),
    "snapshots that cannot be read": (lambda host: host.at("verify", "_meta/snapshots"), 1, "snapshots"),
    "a data file that cannot be read": (lambda host: host.at("verify", "data/*/*"), 1, "1 problem"),
    "a data file that cannot be searched": (lambda host: [*host.at("search", "data/*/*"), "--query", "x"], 1, "data"),
    "current.txt that cannot be read": (lambda host: host.at("verify", "current.txt"), 1, r"current\.txt"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_the_host_is_one_line(fault: str, host: Host) -> None:
    arrange, code, says = FAULTS[fault]
    words = arrange(host)
    begin = time.monotonic()
    ended = in_process(*words)
    host.patched.undo()
    assert time.monotonic() - begin < MAX_SECONDS
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr + ended.stdout
    lines = [line for line in ended.stderr.splitlines() if line.startswith("bulkembed: ")]
    assert len(lines) == (code != 0), ended.stderr
    assert not lines or re.search(says, ended.stderr)  # verify names a problem a line, and counts them in the last one


MISTAKE = f"{sys.executable} -m bulkembed plan --config 'ünï'"
# What a shell does with a command that ends with one line and exit code 2.
SHELLS = {
    "standard error is closed": f"{MISTAKE} 2>&-",
    "standard error is full": f"{MISTAKE} 2>/dev/full",
    "nobody reads standard error": f"{MISTAKE} 2> >(true)",
    "all streams are closed": f"{MISTAKE} <&- >&- 2>&-",
    "the terminal has ASCII only": f"PYTHONIOENCODING=ascii LC_ALL=C {MISTAKE}",
    "few files may be open": f"ulimit -n 64; {MISTAKE}",
    "the terminal is gone": f"nohup {MISTAKE} </dev/null",
}


@pytest.fixture(scope="module")
def shells(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, subprocess.Popen[str]]]:
    """All commands, started at once."""
    folder, environment = tmp_path_factory.mktemp("shells"), os.environ | {"PYTHONPATH": str(ROOT / "pipeline")}
    yield {
        name: subprocess.Popen(["bash", "-c", line], cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for name, line in SHELLS.items()
    }


@pytest.mark.parametrize("shell", SHELLS)
def test_the_exit_code_is_right_whatever_becomes_of_the_streams(shell: str, shells: dict[str, subprocess.Popen[str]]) -> None:
    errors = shells[shell].communicate(timeout=PATIENCE)[1]
    assert shells[shell].returncode == 2
    assert "Traceback" not in errors


@pytest.mark.parametrize("columns", ["0", "1", "-1", "x"])
def test_a_terminal_of_no_width_shows_all(columns: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """rich takes COLUMNS=0 by its word."""
    monkeypatch.setenv("COLUMNS", columns)
    printed = io.StringIO()
    Output(file=printed, soft_wrap=True).print("snapshot 1: 10 documents")
    assert printed.getvalue() == "snapshot 1: 10 documents\n"
