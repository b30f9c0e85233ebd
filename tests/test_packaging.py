"""What is installed, and that it runs elsewhere: outside the clone, and beside other packages named `pipeline` and `jobs`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from bulkembed import __version__
from tests.support.commands import job
from tests.support.corpora import write_corpus
from tests.support.processes import PATIENCE, ROOT
from tests.support.runs import read_dataset

PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "--quiet")
ENTRY_POINT = Path(sys.executable).parent / "bulkembed"


def ran(*command: object, cwd: Path, **environment: str) -> str:
    """What a command prints that must end well, and that has nothing to say on stderr."""
    words = [str(word) for word in command]
    result = subprocess.run(words, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, check=False, timeout=PATIENCE)
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel that is built of what lies in the tree, with what is installed, and without a network."""
    tree, built = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tree)
    for name in ("pipeline", "jobs", "scripts", "tests"):
        shutil.copytree(ROOT / name, tree / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    ran(*PIP, "wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", built, tree, cwd=built)
    (path,) = built.iterdir()
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed")
    ran(*PIP, "install", "--no-index", "--no-deps", "--target", folder, wheel, cwd=folder)
    return folder


def test_a_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if not name.startswith(f"bulkembed-{__version__}.dist-info/")}
    package = ROOT / "pipeline" / "bulkembed"
    sources = {str(path.relative_to(ROOT / "pipeline")) for path in package.rglob("*.py")}
    assert names == sources | {"bulkembed/py.typed"}


def test_an_installed_wheel_runs_outside_the_clone(installed: Path, tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    where = "import bulkembed; print(bulkembed.__file__)"
    assert ran(sys.executable, "-c", where, cwd=tmp_path, PYTHONPATH=str(installed)).startswith(f"{installed}/")
    module = (sys.executable, "-m", "bulkembed")
    assert ran(*module, "--version", cwd=tmp_path, PYTHONPATH=str(installed)) == f"{__version__}\n"
    planned = ran(*module, "plan", *job(tmp_path, qwen)[1:], cwd=tmp_path, PYTHONPATH=str(installed))
    assert "50 rows" in planned


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    """The repository of somebody whose packages are named as folders of this one are. Importing any of them raises."""
    repository = tmp_path / "elsewhere"
    for package in ("pipeline", "jobs"):
        (repository / package).mkdir(parents=True)
        for name in ("__init__", "__main__", "bulkembed", "submit", "nightly_backfill", "reindex_corpus"):
            (repository / package / f"{name}.py").write_text(f"raise ImportError('{package} of another repository')\n")
    write_corpus(tmp_path / "in", files=1)
    return repository


def test_commands_and_jobs_start_beside_other_packages_of_their_folders_names(elsewhere: Path, tmp_path: Path, qwen: str) -> None:
    arguments = job(tmp_path, qwen)[1:]
    for command in (
        (ENTRY_POINT, "plan", *arguments),
        (sys.executable, "-m", "bulkembed", "plan", *arguments),
        (sys.executable, ROOT / "jobs" / "reindex_corpus.py", *arguments),
    ):
        assert "50 rows" in ran(*command, cwd=elsewhere)
    night = [sys.executable, str(ROOT / "jobs" / "nightly_backfill.py"), *map(str, arguments), "--dry-run"]
    done = subprocess.run(night, cwd=elsewhere, capture_output=True, text=True, check=False, timeout=PATIENCE)  # its log is on stderr
    assert (done.returncode, json.loads(done.stdout)["embedded"]) == (0, 50), done.stderr
    assert "usage: submit.py" in ran(sys.executable, ROOT / "jobs" / "submit.py", "--help", cwd=elsewhere)


@pytest.mark.ray
def test_a_run_on_ray_beside_other_packages_of_its_folders_names(elsewhere: Path, tmp_path: Path, qwen: str) -> None:
    """Ray puts the folder that it is started in first on the path of its processes."""
    ran(ENTRY_POINT, *job(tmp_path, qwen, "--set", "ray.layout=split"), cwd=elsewhere)
    assert read_dataset(tmp_path / "out").num_rows == 50
