"""Snapshots: numbers, parents, races, current.txt, and what is wrong said in one line."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkembed.dataset import heads
from bulkembed.dataset.current_txt import current_text
from bulkembed.dataset.manifests import read_files, read_rejected, read_sources
from bulkembed.dataset.publishing import ParentMoved
from bulkembed.dataset.run_keys import find_run_key
from bulkembed.dataset.snapshots import (
    View,
    ancestors,
    current_snapshot,
    newest_dataset,
    newest_of_line,
    snapshot_files,
    snapshot_of,
    snapshots,
)
from bulkembed.dataset.tombstones import bury
from bulkembed.errors import SourceError, StorageError
from bulkembed.inspection.verify import verify
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, simulated
from tests.support.snapshots import data_files, publish_files

STORE = Store()


def test_a_snapshot_is_what_its_manifest_holds(tmp_path: Path) -> None:
    output = str(tmp_path)
    made = publish_files(STORE, output, "a", "b")
    assert (made.number, made.files, made.documents, made.rows, made.objects, made.rejects) == (1, 2, 4, 6, 1, 1)
    assert list(read_files(STORE, output, made.manifest)) == data_files("a", "b")
    assert [each.path for each in read_sources(STORE, output, made.manifest)] == ["a.jsonl"]
    assert list(read_rejected(STORE, output, made.manifest)) == []
    assert newest_dataset(STORE, output)[1] == snapshot_of(STORE, output, 1) == made


def test_a_manifest_has_parts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bulkembed.dataset.manifests.PART_ROWS", 3)
    names = [f"{number:02d}" for number in range(10)]
    made = publish_files(STORE, str(tmp_path), *names)
    parts = sorted(tmp_path.glob(f"_meta/manifests/{made.manifest}/files-*"))
    assert len(parts) == 4
    assert snapshot_files(STORE, str(tmp_path), made) == names
    parts[-1].unlink()
    with pytest.raises(StorageError, match="is damaged: 9 files of 10"):
        snapshot_files(STORE, str(tmp_path), made)
    parts[1].unlink()
    with pytest.raises(StorageError, match="parts of this manifest are missing"):
        snapshot_files(STORE, str(tmp_path), made)


def test_a_file_is_not_listed_twice(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a comes after a"):
        publish_files(STORE, str(tmp_path), "a", "a")


def test_a_run_publishes_only_onto_the_parent_that_it_was_planned_from(tmp_path: Path) -> None:
    output = str(tmp_path)
    publish_files(STORE, output, "a")
    publish_files(STORE, output, "a", line="other")
    publish_files(STORE, output, "a", limit=3)
    assert publish_files(STORE, output, "b", parent=1).number == 4
    for parent in (0, 1, 2):
        with pytest.raises(ParentMoved) as moved:
            publish_files(STORE, output, "c", parent=parent)
        assert moved.value.newest == newest_of_line(STORE, output, "l", limited=False)
    fifth = publish_files(STORE, output, "c", parent=4)
    assert [each.number for each in ancestors(STORE, output, fifth)] == [4, 1]
    assert [each.number for each in snapshots(STORE, output)] == [1, 2, 3, 4, 5]


def test_a_number_of_an_expired_snapshot_is_not_used_again(tmp_path: Path) -> None:
    output = str(tmp_path)
    publish_files(STORE, output, "a")
    publish_files(STORE, output, "b", line="other")
    bury(STORE, output, 2, "other", "beyond keep")
    (tmp_path / "_meta/snapshots/00000002.json").unlink()
    assert publish_files(STORE, output, "b", parent=1).number == 3
    assert [each.number for each in snapshots(STORE, output)] == [1, 3]
    with pytest.raises(SourceError, match="snapshot 2 has expired"):
        newest_dataset(STORE, output, 2)
    with pytest.raises(SourceError, match="there is no snapshot 9; `bulkembed snapshots` lists them"):
        newest_dataset(STORE, output, 9)


def test_a_run_key_is_found_however_old_and_after_a_crash(tmp_path: Path) -> None:
    output = str(tmp_path)
    first = publish_files(STORE, output, "a", run_key="2026-11-01/x")
    (marker,) = tmp_path.glob("_meta/run_keys/l/*.json")
    marker.unlink()  # as if the run had died before it
    assert find_run_key(View(STORE, output), "l", "2026-11-01/x") == first.number
    for parent in range(1, 4):
        publish_files(STORE, output, "a", parent=parent)
    assert find_run_key(View(STORE, output), "l", "2026-11-01/x") == 1
    assert find_run_key(View(STORE, output), "l", "2026-11-02") is None
    assert find_run_key(View(STORE, output), "other", "2026-11-01/x") is None


@pytest.mark.parametrize("where", ["local", "s3"])
def test_racing_runs_take_numbers_in_a_line(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Six lines at once. Then six runs of one line that were planned from the same parent, of which one publishes."""
    store = Store() if where == "local" else Store(request.getfixturevalue("s3"))
    output = str(tmp_path) if where == "local" else f"s3://corpus/{tmp_path.name}"

    def publish(line: str, **values: object) -> int | None:
        try:
            number = publish_files(store, output, "a", line=line, fingerprint=line, **values).number
        except ParentMoved:
            return None
        heads.refresh_head(store, output)
        return number

    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(lambda line: publish(f"line{line}"), range(6)))
        assert sorted(filter(None, numbers)) == [1, 2, 3, 4, 5, 6]
        assert sorted(map(str, pool.map(lambda _: publish("line0", parent=numbers[0]), range(6)))) == ["7"] + ["None"] * 5
    current = current_snapshot(store, output)
    assert current is not None
    assert current.line == snapshot_of(store, output, 1).line
    expected = f"{output}/data/{current.line}/a.parquet\n".encode()
    assert store.read(f"{output}/current.txt") == current_text(View(store, output), current) == expected


def test_a_lost_answer_to_a_write_that_went_through_is_recognised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = Store.create

    def create(self: Store, uri: str, data: bytes) -> bool:
        return original(self, uri, data) and "/snapshots/" not in uri

    monkeypatch.setattr(Store, "create", create)
    assert publish_files(STORE, str(tmp_path), "a").number == 1
    assert [each.number for each in snapshots(STORE, str(tmp_path))] == [1]


def current(output: Path) -> list[str]:
    return [Path(line).stem for line in (output / "current.txt").read_text(encoding="utf-8").splitlines()]


def test_current_txt_and_the_head_are_made_good_after_a_crash_before_them(tmp_path: Path) -> None:
    output = str(tmp_path)
    publish_files(STORE, output, "a")
    publish_files(STORE, output, "b", line="other")
    assert newest_dataset(STORE, output)[1].number == 1
    heads.refresh_head(STORE, output)
    assert current(tmp_path) == ["a"]
    publish_files(STORE, output, "a", "b", parent=1)
    assert current(tmp_path) == ["a"]
    heads.refresh_head(STORE, output)
    assert current(tmp_path) == ["a", "b"]


def test_current_txt_is_of_the_newest_of_two_publishers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one publishes, and writes its list, between this one's look at the current snapshot and its write."""
    output = str(tmp_path)
    publish_files(STORE, output, "a")

    def other() -> None:
        publish_files(STORE, output, "a", "b", parent=1)
        heads.refresh_head(STORE, output)

    original, others = Store.put, [other]

    def put(self: Store, uri: str, data: bytes) -> None:
        if others and uri.endswith("current.txt"):
            others.pop()()
        original(self, uri, data)

    monkeypatch.setattr(Store, "put", put)
    heads.refresh_head(STORE, output)
    assert current(tmp_path) == ["a", "b"]


def test_the_files_of_a_relative_output_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    publish_files(STORE, "out", "a")
    heads.refresh_head(STORE, "out")
    assert (tmp_path / "out/current.txt").read_text(encoding="utf-8") == f"{tmp_path}/out/data/f/a.parquet\n"


def test_no_dataset_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no finished dataset"):
        newest_dataset(Store(), str(tmp_path))


@pytest.mark.parametrize("damaged", [b"", b"{}", b'{"number": 1', b"[1]", b"\xff"])
@pytest.mark.parametrize("name", ["snapshots", "receipts", "heads"])
def test_a_damaged_record_is_one_line_that_names_it(tmp_path: Path, qwen: str, name: str, damaged: bytes) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    path = min((tmp_path / "out/_meta" / name).rglob("*.json"))
    path.write_bytes(damaged)
    store, output = Store(), str(tmp_path / "out")
    if name == "receipts":
        assert next(verify(store, *newest_dataset(store, output))).text.startswith(f"{path}: is damaged: ")
    else:
        with pytest.raises(StorageError, match=f"^{path}: is damaged: "):
            newest_dataset(store, output)
