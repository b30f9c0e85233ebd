"""Records of an output that are damaged or lost: what `verify` says, and what mends it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bulkembed import api
from bulkembed.config.run_config import RunConfig
from bulkembed.errors import ModelError, StorageError
from tests.support.corpora import documents, write_jsonl
from tests.support.runs import in_one_process, problems, read_dataset, simulated


@pytest.fixture
def nights(tmp_path: Path, qwen: str) -> RunConfig:
    """The configuration of the second of two nights, each with a run key."""
    (tmp_path / "in").mkdir()
    rows = documents(40)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    for key, count in (("monday", 30), ("tuesday", 40)):
        write_jsonl(tmp_path / "in/a.jsonl", rows[:count])
        cfg = cfg.model_copy(update={"run_key": key})
        in_one_process(cfg)
    assert problems(tmp_path / "out") == []
    return cfg


def manifest(output: Path, number: int) -> Path:
    return output / "_meta/manifests" / str(json.loads((output / f"_meta/snapshots/{number:08d}.json").read_text())["manifest"])


@pytest.mark.parametrize("part", ["files", "sources", "rejected"])
def test_a_damaged_manifest_is_gone_back_from(part: str, nights: RunConfig, tmp_path: Path) -> None:
    output = tmp_path / "out"
    before = read_dataset(output).sort_by("id")
    path = manifest(output, 2) / f"{part}-00000.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    (said, *more) = problems(output)
    assert str(path) in said and "is damaged" in said and "`bulkembed rollback`" in said
    assert more == []
    assert api.repair(output).hopeless == 1
    with pytest.raises(StorageError, match="`bulkembed rollback`"):
        in_one_process(nights.model_copy(update={"run_key": "wednesday"}))
    api.rollback(output, 1)
    in_one_process(nights.model_copy(update={"run_key": "wednesday"}))
    assert problems(output) == []
    assert read_dataset(output).sort_by("id") == before


def test_an_old_manifest_that_is_damaged_blocks_gc_alone(nights: RunConfig, tmp_path: Path) -> None:
    """Its remedy: the folder is removed, and the snapshot expires."""
    output = tmp_path / "out"
    (manifest(output, 1) / "files-00000.parquet").write_bytes(b"x")
    assert problems(output) == []
    assert ["gc cannot work: " in problem for problem in api.verify(output).problems] == [True]
    assert api.repair(output).repair.removed == []
    in_one_process(nights)
    shutil.rmtree(manifest(output, 1))
    api.gc(output, keep=1)
    assert api.verify(output).problems == []


@pytest.mark.parametrize("number", [1, 2])
def test_a_lost_record_of_a_snapshot_is_named(number: int, nights: RunConfig, tmp_path: Path) -> None:
    """A run whose snapshot is lost has not been there."""
    output = tmp_path / "out"
    before = read_dataset(output).sort_by("id")
    path = output / f"_meta/snapshots/{number:08d}.json"
    path.unlink()
    assert any(str(path) in problem and "missing" in problem for problem in problems(output))
    in_one_process(nights)
    assert read_dataset(output).sort_by("id") == before
    assert any(str(path) in problem for problem in problems(output)) == (number == 1)


@pytest.mark.parametrize("harm", [Path.unlink, lambda path: path.write_bytes(b"{}")], ids=["lost", "damaged"])
def test_without_the_types_of_its_line_no_run_writes_anything(harm: Callable[[Path], object], nights: RunConfig, tmp_path: Path) -> None:
    """A run in other types would take every row for another one."""
    (path,) = (tmp_path / "out/_meta/runs").iterdir()
    harm(path)
    (said,) = problems(tmp_path / "out")
    assert str(path) in said and "restore it" in said
    before = sorted((tmp_path / "out").rglob("*"))
    for key in (None, "tuesday"):
        with pytest.raises(StorageError, match="restore it"):
            in_one_process(nights.model_copy(update={"run_key": key}))
    assert sorted((tmp_path / "out").rglob("*")) == before


FOREIGN = [
    *("data/note.txt", "data/*/note", "_meta/snapshots/1.json", "_meta/snapshots/².json", "_meta/heads/7.json", "_meta/tombstones/2"),
    *("_meta/receipts/*/note", "_meta/keys/*/note", "_meta/run_keys/*/note", "_meta/leases/*/1.json", "_meta/tags/note", "_meta/pins/note"),
]


@pytest.mark.parametrize("place", FOREIGN)
def test_files_of_others_are_left_alone(place: str, nights: RunConfig, tmp_path: Path) -> None:
    folder, _, name = place.rpartition("/")
    for at in (*(tmp_path / "out").glob(folder), tmp_path / "out" / folder.replace("*", "other")):
        at.mkdir(parents=True, exist_ok=True)
        (at / name).write_bytes(b"{}")
    assert api.verify(tmp_path / "out").problems == []
    assert api.repair(tmp_path / "out").repair.removed == []
    assert in_one_process(nights.model_copy(update={"run_key": None})).is_current
    assert (at / name).read_bytes() == b"{}"


def test_a_list_of_erased_ids_that_is_damaged_is_named(nights: RunConfig, tmp_path: Path) -> None:
    path = tmp_path / "out/_meta/forget/00000001.json"
    path.parent.mkdir()
    path.write_bytes(b"{}")
    (said,) = problems(tmp_path / "out")
    assert said.startswith(f"{path}: is damaged")


def test_a_repeated_run_writes_a_lost_current_txt(nights: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "out/current.txt").unlink()
    assert in_one_process(nights).plan.repeated is not None
    assert problems(tmp_path / "out") == []


def test_sample_and_search_say_which_file_is_damaged(nights: RunConfig, tmp_path: Path) -> None:
    path = min((tmp_path / "out").glob("data/*/*"))
    path.write_bytes(path.read_bytes()[:-9])
    found = api.verify(tmp_path / "out", sample=99, source=tmp_path / "in").problems
    assert any(problem.startswith(f"sample: {path}: ") for problem in found)
    with pytest.raises(StorageError, match="is unreadable"):
        api.search(tmp_path / "out", "token")
    path.unlink()
    with pytest.raises(StorageError, match="is missing"):
        api.search(tmp_path / "out", "token")


def test_a_model_that_has_moved_is_said_where(nights: RunConfig, tmp_path: Path, qwen: str) -> None:
    output, moved = tmp_path / "out", tmp_path / "moved"
    for path in (*output.glob("_meta/snapshots/*"), *output.glob("_meta/receipts/*/*"), *output.glob("_meta/runs/*")):
        path.write_text(path.read_text().replace(qwen, str(tmp_path / "gone")))
    with pytest.raises(ModelError, match="--model says where"):
        api.verify(output, sample=9, source=tmp_path / "in")
    shutil.copytree(qwen, moved)
    again = api.verify(output, sample=99, source=tmp_path / "in", model=str(moved)).resample
    assert again is not None
    assert (again.rows, again.problems) == (40, [])
