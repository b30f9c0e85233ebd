"""Publications, trials, tags, pins, leases, gc and crashes in any order: what is needed is always there."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from bulkembed.dataset import paths
from bulkembed.dataset.gc import GcRules, gc
from bulkembed.dataset.head_records import move_head
from bulkembed.dataset.json_records import write_record
from bulkembed.dataset.pins import pin_snapshot, pins
from bulkembed.dataset.snapshots import current_snapshot, read_snapshot, snapshot_files, snapshots
from bulkembed.dataset.tags import create_tag, remove_tag, tags
from bulkembed.dataset.tombstones import tombstones
from bulkembed.storage.store import Store
from tests.support.outputs import Output
from tests.support.stores import Dying, Killed

DAY = 86400.0
RULES = GcRules(keep=2, grace=DAY, older_than=7 * DAY, max_share=1.0)
LINES = st.sampled_from(["a", "b"])
FILES = st.sets(st.sampled_from([f"f{number}" for number in range(6)]), min_size=1).map(sorted)


class Upkeep(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.output = Output(Store(), str(self.folder / "out"))
        self.output.publish("a", ["f0"], ["f0"])
        self.epoch = 0

    def teardown(self) -> None:
        if hasattr(self, "output"):
            self.collect_all()
            shutil.rmtree(self.folder)

    @rule(line=LINES, files=FILES, is_trial=st.booleans())
    def publish(self, line: str, files: list[str], is_trial: bool) -> None:
        """Also adopts files that are there, or makes them anew."""
        self.output.publish(line, files, files, limit=5 if is_trial else None)

    @rule(line=LINES, files=FILES)
    def abort(self, line: str, files: list[str]) -> None:
        for name in files:
            self.output.write_file(line, name)
            self.output.write_keys(line, name)

    @rule(hours=st.sampled_from([1, 23, 25, 170]))
    def pass_time(self, hours: int) -> None:
        for path in Path(self.output.at).rglob("*"):
            if path.is_file():
                then = path.stat().st_mtime - hours * 3600
                os.utime(path, (then, then))

    @rule(number=st.integers(0, 20), seconds=st.sampled_from([60.0, 10 * DAY]))
    def pin(self, number: int, seconds: float) -> None:
        live = snapshots(self.output.store, self.output.at)
        pin_snapshot(self.output.store, self.output.at, live[number % len(live)].number, seconds)

    @rule(number=st.integers(0, 20), name=st.sampled_from(["x", "y"]))
    def tag(self, number: int, name: str) -> None:
        known = tags(self.output.store, self.output.at)
        if name in known:
            remove_tag(self.output.store, self.output.at, name)
            return
        live = snapshots(self.output.store, self.output.at)
        create_tag(self.output.store, self.output.at, name, live[number % len(live)].number)

    @rule(line=LINES, number=st.integers(0, 20))
    def lease(self, line: str, number: int) -> None:
        live = snapshots(self.output.store, self.output.at)
        self.epoch += 1
        uri = paths.numbered_uri(paths.leases_folder(self.output.at, line), self.epoch)
        write_record(self.output.store, uri, {"base": live[number % len(live)].number, "seconds": 7200})

    @rule(line=LINES)
    def move_head(self, line: str) -> None:
        if any(snapshot.line == line for snapshot in snapshots(self.output.store, self.output.at)):
            move_head(self.output.store, self.output.at, line, None, "publish")

    @rule(max_deletes=st.integers(0, 12), at_once=st.booleans())
    def collect(self, max_deletes: int, at_once: bool) -> None:
        with suppress(Killed):
            gc(Dying(max_deletes), self.output.at, replace(RULES, grace=0.0) if at_once else RULES)

    @invariant()
    def what_is_needed_is_there(self) -> None:
        if not hasattr(self, "output"):
            return
        store, at = self.output.store, self.output.at
        live = {snapshot.number: snapshot for snapshot in snapshots(store, at)}
        for snapshot in live.values():
            assert not self.output.missing(snapshot), snapshot
        current = current_snapshot(store, at)
        pinned = {pin.snapshot for pin in pins(store, at) if time.time() < pin.expires}
        assert current is not None and {current.number, *tags(store, at).values(), *pinned} <= live.keys()

    def collect_all(self) -> None:
        """After enough of time and gc, nothing is left that is not needed."""
        for _ in range(2):
            self.pass_time(24 * 30)
            gc(self.output.store, self.output.at, RULES)
        store, at = self.output.store, self.output.at
        live = snapshots(store, at)
        assert not pins(store, at) and len(live) <= 2 * 4 + len(tags(store, at))
        for line in ("a", "b"):
            wanted = {name for snapshot in live if snapshot.line == line for name in self.names_of(snapshot.number)}
            assert self.output.data(line) == wanted
            assert {name.removesuffix(".json") for name in store.names(paths.receipts_folder(at, line))} == wanted
            assert {name.removesuffix(".parquet") for name in store.names(paths.keys_folder(at, line))} == wanted
        tokens = {item.relative_path.partition("/")[0] for item in store.listed(paths.manifests_folder(at))}
        assert tokens == {snapshot.manifest for snapshot in live}
        assert set(tombstones(store, at)).isdisjoint({snapshot.number for snapshot in live})

    def names_of(self, number: int) -> list[str]:
        return snapshot_files(self.output.store, self.output.at, read_snapshot(self.output.store, self.output.at, number))


Upkeep.TestCase.settings = settings(max_examples=6, stateful_step_count=12, deadline=None)
TestUpkeep = Upkeep.TestCase
