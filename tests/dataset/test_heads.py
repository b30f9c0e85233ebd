"""What moves the head: the first snapshot, publish and rollback, and nothing else."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from bulkembed.dataset import heads, paths
from bulkembed.dataset.current_txt import read_current
from bulkembed.dataset.manifests import read_files, read_sources
from bulkembed.dataset.publishing import ParentMoved
from bulkembed.dataset.snapshots import Draft, Snapshot, current_snapshot, newest_of_line, snapshot_files, snapshots
from bulkembed.dataset.tombstones import bury
from bulkembed.errors import SourceError, StorageError
from bulkembed.storage.store import Store
from tests.support.snapshots import publish_files

STORE = Store()
NAMES = st.sets(st.sampled_from("abcd"))


def write_data(output: Path, *names: str) -> None:
    for name in names:
        STORE.put(paths.data_uri(str(output), "f", name), b"rows")


def test_publish_makes_another_line_current_and_rollback_goes_back(tmp_path: Path) -> None:
    output = str(tmp_path)
    write_data(tmp_path, "a", "b", "c")
    for line, names, parent in (("old", "a", 0), ("new", "b", 0), ("old", "ac", 1), ("new", "bc", 2)):
        publish_files(STORE, output, *names, line=line, parent=parent)
        heads.refresh_head(STORE, output)
    assert current_snapshot(STORE, output) == snapshots(STORE, output)[2]
    assert heads.publish(STORE, output, 4).number == 4
    back = heads.rollback(STORE, output, 1)
    assert (back.number, back.parent, back.line, snapshot_files(STORE, output, back)) == (5, 3, "old", ["a"])
    first = snapshots(STORE, output)[0]
    same = {"documents", "rows", "rejects", "files", "objects", "source_identity", *(item.name for item in fields(Draft))} - {"parent"}
    assert all(getattr(back, name) == getattr(first, name) for name in same)
    for read in (read_files, read_sources):
        assert list(read(STORE, output, back.manifest)) == list(read(STORE, output, first.manifest))
    assert heads.publish(STORE, output, 2).number == 6, "a snapshot that is not the newest of its line"
    assert [each.number for each in snapshots(STORE, output)] == [1, 2, 3, 4, 5, 6]
    with pytest.raises(ParentMoved):  # a run that was planned before the way back
        publish_files(STORE, output, "a", line="old", parent=3)


def test_what_cannot_be_current_is_one_line(tmp_path: Path) -> None:
    output = str(tmp_path)
    write_data(tmp_path, "a")
    publish_files(STORE, output, "a", limit=3)
    publish_files(STORE, output, "a", "b")
    publish_files(STORE, output, "a", line="other")
    bury(STORE, output, 3, "other", "beyond keep")
    for move in (heads.publish, heads.rollback):
        with pytest.raises(SourceError, match=r"snapshot 1 is a trial .--limit 3. of a line that has a whole dataset"):
            move(STORE, output, 1)
        with pytest.raises(StorageError, match=r"snapshot 2 lists 1 files that are gone, such as b\.parquet"):
            move(STORE, output, 2)
        with pytest.raises(SourceError, match="snapshot 3 has expired"):
            move(STORE, output, 3)
        with pytest.raises(SourceError, match="there is no snapshot 4"):
            move(STORE, output, 4)


def test_a_way_back_and_a_run_at_once_are_both_published_or_one_is_told(tmp_path: Path) -> None:
    output = str(tmp_path)
    write_data(tmp_path, "a", "b")
    publish_files(STORE, output, "a")
    publish_files(STORE, output, "a", "b", parent=1)

    def night(_: int) -> int:
        try:
            return publish_files(STORE, output, "b", parent=2).number
        except ParentMoved:
            return 0

    with ThreadPoolExecutor(4) as pool:
        runs, backs = pool.map(night, range(2)), pool.map(lambda _: heads.rollback(STORE, output, 1).number, range(2))
        numbers = sorted([*filter(None, runs), *backs])
    assert numbers == list(range(3, 3 + len(numbers)))
    assert [each.parent for each in snapshots(STORE, output)] == [0, 1, *range(2, 2 + len(numbers))]


class Nights(RuleBasedStateMachine):
    """Runs of two lines, trials, late runs, publish and rollback in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.output = Path(self.folder.name)
        self.made: list[Snapshot] = []
        self.line: str | None = None
        write_data(self.output, *"abcd")

    def teardown(self) -> None:
        self.folder.cleanup()

    def newest(self, line: str, limited: bool) -> Snapshot | None:
        return next((each for each in reversed(self.made) if (each.line, each.limited) == (line, limited)), None)

    @rule(line=st.sampled_from(["x", "y"]), limit=st.sampled_from([None, None, 2]), names=NAMES, late=st.booleans())
    def run(self, line: str, limit: int | None, names: set[str], late: bool) -> None:
        newest = self.newest(line, limit is not None)
        planned = newest.parent if newest and late else newest.number if newest else 0
        values = {"line": line, "limit": limit, "parent": planned}
        if newest is not None and late:
            with pytest.raises(ParentMoved):
                publish_files(STORE, str(self.output), *sorted(names), **values)
        else:
            self.made.append(publish_files(STORE, str(self.output), *sorted(names), **values))
            self.line = self.line or line
        heads.refresh_head(STORE, str(self.output))

    @precondition(lambda self: self.made)
    @rule(data=st.data(), move=st.sampled_from([heads.publish, heads.rollback]))
    def move(self, data: st.DataObject, move: object) -> None:
        assert callable(move)
        wanted = data.draw(st.sampled_from(self.made))
        newest = self.newest(wanted.line, wanted.limited)
        assert newest is not None
        if wanted.limited and self.newest(wanted.line, False) is not None:
            with pytest.raises(SourceError, match="is a trial"):
                move(STORE, str(self.output), wanted.number)
            return
        current = move(STORE, str(self.output), wanted.number)
        if current != wanted:
            expected = replace(wanted, number=len(self.made) + 1, parent=newest.number, created=current.created, manifest=current.manifest)
            assert current == expected
            assert newest != wanted
            self.made.append(current)
        self.line = wanted.line

    @invariant()
    def numbers_have_no_gaps_and_nothing_published_changes(self) -> None:
        found = snapshots(STORE, str(self.output))
        assert found == self.made
        assert [each.number for each in found] == list(range(1, len(found) + 1))

    @invariant()
    def the_head_is_where_the_rules_put_it(self) -> None:
        current = current_snapshot(STORE, str(self.output))
        if self.line is None:
            assert current is None
            return
        assert current is not None
        assert current == (self.newest(self.line, False) or self.newest(self.line, True))
        assert current == newest_of_line(STORE, str(self.output), self.line, current.limited)
        listed = (read_current(STORE, str(self.output)) or b"").decode().split()
        assert [Path(line).stem for line in listed] == snapshot_files(STORE, str(self.output), current)


TestNights = Nights.TestCase
TestNights.settings = settings(max_examples=10, stateful_step_count=10, deadline=None)
