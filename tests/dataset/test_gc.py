"""gc: what expires, what is deleted, and what stays whatever happens."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bulkembed.dataset import paths
from bulkembed.dataset.gc import GcRules, gc, plan_at, plan_gc
from bulkembed.dataset.json_records import write_record
from bulkembed.dataset.pins import pin_snapshot
from bulkembed.dataset.snapshots import Snapshot
from bulkembed.dataset.sweep import sweep
from bulkembed.dataset.tags import create_tag, remove_tag, tags
from bulkembed.dataset.tombstones import tombstones
from bulkembed.errors import ConfigError, HeldBack, SourceError
from bulkembed.storage.store import Store
from tests.support.outputs import Output
from tests.support.stores import Dying, Killed

DAY = 86400.0
RULES = GcRules(keep=1, grace=DAY, older_than=7 * DAY, max_share=1.0)
AT_ONCE = replace(RULES, grace=0.0)


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(Store(), str(tmp_path / "out"))


def age(output: Output, folder: str, days: float) -> None:
    """Makes every object below a folder so many days old."""
    then = time.time() - days * DAY
    for path in Path(output.at, folder).rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def lease(output: Output, line: str, base: int, epoch: int = 1, seconds: float = 60.0) -> None:
    write_record(output.store, paths.numbered_uri(paths.leases_folder(output.at, line), epoch), {"base": base, "seconds": seconds})


def collect(output: Output, rules: GcRules = RULES) -> None:
    gc(output.store, output.at, rules)


def test_old_snapshots_expire_and_nothing_is_deleted(output: Output) -> None:
    for night in range(4):
        output.publish("a", [f"f{night}"], [f"o{night}"])
    before = output.names()
    done = gc(output.store, output.at, replace(RULES, keep=2))
    assert [snapshot.number for snapshot in done.expiring] == [1, 2]
    assert set(tombstones(output.store, output.at)) == {1, 2}
    assert output.names() - before == {f"_meta/tombstones/{number:08d}.json" for number in (1, 2)} and before <= output.names()
    assert done.waiting == [1, 2]


def held_by(output: Output, how: str) -> None:
    match how:
        case "tag":
            create_tag(output.store, output.at, "golden", 1)
        case "pin":
            pin_snapshot(output.store, output.at, 1, 3600)
        case "lease":
            lease(output, "a", 1)


@pytest.mark.parametrize("how", ["tag", "pin", "lease"])
def test_what_is_held_neither_expires_nor_goes(output: Output, how: str) -> None:
    first = output.publish("a", ["f1"], ["o1"])
    output.publish("a", ["f2"])
    held_by(output, how)
    age(output, "", 30)
    if how != "tag":
        age(output, "_meta/pins", 0)
        age(output, "_meta/leases", 0)
    collect(output, AT_ONCE)
    assert tombstones(output.store, output.at) == {} and not output.missing(first)


@pytest.mark.parametrize("how", ["tag", "pin", "lease"])
def test_what_is_held_after_it_expired_stays_until_it_is_not(output: Output, how: str) -> None:
    first = output.publish("a", ["f1"], ["o1"])
    output.publish("a", ["f2"])
    held_by(output, how)
    output.store.put(paths.numbered_uri(paths.tombstones_folder(output.at), 1), b"{}")
    collect(output, AT_ONCE)
    assert not output.missing(first)
    if how == "tag":
        remove_tag(output.store, output.at, "golden")
    age(output, "_meta/pins", 1)
    age(output, "_meta/leases", 1)
    collect(output, AT_ONCE)
    assert output.data("a") == {"f2"}


def test_the_newest_of_every_line_and_the_current_one_stay(output: Output) -> None:
    kept = [output.publish("a", ["f1"]), output.publish("a", ["t1"], limit=5), output.publish("b", ["g1"])]
    output.publish("a", ["t2"], limit=5)
    collect(output, AT_ONCE)
    assert set(tombstones(output.store, output.at)) == {2}
    assert not output.missing(kept[0]) and not output.missing(kept[2])
    assert output.data("a") == {"f1", "t2"}


def test_age_counts_from_the_tombstone_and_not_from_the_file(output: Output) -> None:
    output.publish("a", ["f1", "f2"], ["o1", "o2"])
    output.publish("a", ["f2"], ["o2"])
    age(output, "", 400)
    collect(output)  # expires now, however old its files are
    assert output.data("a") == {"f1", "f2"}
    age(output, "_meta/tombstones", 0.9)
    collect(output)
    assert output.data("a") == {"f1", "f2"}
    age(output, "_meta/tombstones", 1.1)
    collect(output)
    assert output.data("a") == {"f2"}
    for folder in (paths.keys_folder(output.at, "a"), paths.rejects_folder(output.at, "a")):
        assert output.store.names(folder) == ["o2.parquet"]
    assert output.store.names(paths.receipts_folder(output.at, "a")) == ["f2.json"]
    assert len(output.store.listed(paths.manifests_folder(output.at))) == 3  # parts of one manifest


def test_a_number_is_never_used_twice(output: Output) -> None:
    for night in range(3):
        output.publish("a", [f"f{night}"])
    collect(output, AT_ONCE)
    assert output.publish("a", ["f4"]).number == 4
    assert set(tombstones(output.store, output.at)) == {1, 2}
    assert output.store.names(paths.snapshots_folder(output.at)) == [f"{number:08d}.json" for number in (1, 2, 3, 4)]


def test_what_no_snapshot_lists_goes_when_it_is_old(output: Output) -> None:
    output.publish("a", ["f1"])
    output.write_file("a", "orphan")
    output.write_keys("a", "orphan")
    for name in ("_meta/exchange/t/0.arrow", "_meta/manifests/t/files-00000.parquet", "data/a/.f9.parquet.0123", "_meta/clock/t"):
        output.store.put(f"{output.at}/{name}", b"left")
    whole = output.names() | {"data/a/.f9.parquet.0123"}
    collect(output)
    assert output.names() == whole
    age(output, "", 8)
    collect(output)
    assert whole - output.names() == {
        *(f"data/a/{name}" for name in ("orphan.parquet", ".f9.parquet.0123")),
        *(f"_meta/{name}/a/orphan.parquet" for name in ("keys", "rejects")),
        *("_meta/receipts/a/orphan.json", "_meta/exchange/t/0.arrow", "_meta/manifests/t/files-00000.parquet", "_meta/clock/t"),
    }


def test_what_bulkembed_did_not_write_stays(output: Output) -> None:
    output.publish("a", ["f1"])
    strangers = {"data/README", "data/a/_SUCCESS", "data/a/sub/f9.parquet", "notes.txt", "_meta/tags/README"}
    for name in strangers:
        output.store.put(f"{output.at}/{name}", b"mine")
    age(output, "", 400)
    collect(output)
    assert strangers <= output.names()


def test_nothing_goes_of_a_line_on_which_a_run_is_under_way(output: Output) -> None:
    for line in ("a", "b"):
        for night in (1, 2):
            output.publish(line, [f"f{night}"], [f"o{night}"])
        output.write_file(line, "orphan")
    output.write_file("unknown", "orphan")
    output.store.put(f"{output.at}/_meta/exchange/t/0.arrow", b"of the run on a, or older")
    age(output, "", 30)
    age(output, "_meta/exchange", 8)
    lease(output, "a", 2)
    age(output, "_meta/leases", 9)
    (Path(output.at) / "_meta/leases/a/00000001.beat").touch()  # a run that has lasted longer than `older_than`
    done = gc(output.store, output.at, AT_ONCE)
    assert output.data("a") == {"f1", "f2", "orphan"} and output.data("b") == {"f2"} and output.data("unknown") == {"orphan"}
    assert output.store.stands(f"{output.at}/_meta/exchange/t/0.arrow")
    assert done.found.busy == {"a": 7 + 2, "(unknown)": 2}
    age(output, "_meta/leases", 9)
    collect(output, AT_ONCE)
    assert output.data("a") == output.data("b") == {"f2"} and output.data("unknown") == set()


def test_the_newest_lease_of_a_line_stays_so_that_no_epoch_comes_twice(output: Output) -> None:
    output.publish("a", ["f1"])
    for epoch in (9, 10):
        lease(output, "a", 1, epoch)
    output.store.put(f"{output.at}/_meta/leases/a/00000009.beat", b"")
    age(output, "", 30)
    collect(output)
    assert output.store.names(paths.leases_folder(output.at, "a")) == ["00000010.json"]


def test_more_than_a_share_of_all_data_is_refused_in_one_line(output: Output) -> None:
    for night in range(4):
        output.publish("a", [f"f{night}"])
    before = output.names()
    rules = replace(AT_ONCE, max_share=0.5)
    with pytest.raises(HeldBack, match=r"75% of the bytes .* nothing was deleted; .* --allow-share 0\.7[56]") as refused:
        collect(output, rules)
    assert refused.value.exit_code == 3 and "\n" not in str(refused.value)
    assert output.names() == before
    collect(output, replace(rules, max_share=0.76))
    assert output.data("a") == {"f3"}


def test_a_plan_says_what_gc_does_and_writes_nothing(output: Output) -> None:
    for night in range(3):
        output.publish("a", [f"f{night}"], [f"o{night}"])
    pin_snapshot(output.store, output.at, 1, 0.0)
    before = output.names()
    plan = plan_gc(output.store, output.at, AT_ONCE)
    assert output.names() == before
    assert plan.totals["expired snapshots", "data"] == (2, 2000) and plan.data_bytes == 2000
    done = gc(output.store, output.at, AT_ONCE)
    assert (done.totals, done.freed) == (plan.totals, plan.freed)
    assert output.store.names(paths.pins_folder(output.at)) == []
    deleted = {name for name in before - output.names() if not name.startswith("_meta/pins")}
    assert sum(objects for objects, _ in plan.totals.values()) == len(deleted)


def test_a_place_without_snapshots_is_refused(output: Output) -> None:
    output.write_file("a", "f1")
    with pytest.raises(SourceError, match="no finished dataset"):
        collect(output)


GARBAGE = 14  # objects that the next test deletes


def receipts_are_true(output: Output) -> bool:
    receipts = {name.removesuffix(".json") for name in output.store.names(paths.receipts_folder(output.at, "a"))}
    return receipts <= output.data("a")


def test_killed_after_any_deletion_it_leaves_a_true_state_and_goes_on(tmp_path: Path) -> None:
    template = Output(Store(), str(tmp_path / "template"))
    template.publish("a", ["f1", "f2"], ["o1"])
    template.publish("a", ["f2", "f3"], ["o2"])
    last = template.publish("a", ["f3", "f4"], ["o2", "o3"])
    template.write_file("a", "orphan")
    age(template, "", 30)
    survivors: list[set[str]] = []
    for k in range(GARBAGE + 1):
        output = Output(Store(), str(tmp_path / f"{k}"))
        shutil.copytree(template.at, output.at)
        with pytest.raises(Killed) if k < GARBAGE else nullcontext():
            gc(Dying(k), output.at, AT_ONCE)
        assert receipts_are_true(output) and not output.missing(last)
        age(output, "_meta/tombstones", 0.1)
        collect(output, AT_ONCE)
        assert output.data("a") == {"f3", "f4"} and not output.missing(last)
        survivors.append(output.names())
    assert all(names == survivors[0] for names in survivors)


def between(output: Output, event: Callable[[], Any]) -> None:
    """Sweeps by a plan that was made before an event."""
    plan = plan_at(output.store, output.at, AT_ONCE, time.time())
    for record in plan.expiring:
        output.store.put(paths.numbered_uri(paths.tombstones_folder(output.at), record.number), b"{}")
    event()
    sweep(output.store, output.at, plan.state, plan.freed, plan.found)


def test_what_is_needed_since_it_was_planned_is_not_deleted(output: Output) -> None:
    output.publish("a", ["f1"], ["o1"])
    output.publish("a", ["f2"])
    came: list[Snapshot] = []
    between(output, lambda: came.append(output.publish("a", ["f1", "f3"], ["o1"])))  # a run has adopted the file
    assert output.data("a") == {"f1", "f2", "f3"} and not output.missing(came[0])


@pytest.mark.parametrize("event", ["lease", "pin"])
def test_a_run_or_a_reader_that_came_since_is_seen(output: Output, event: str) -> None:
    first = output.publish("a", ["f1"], ["o1"])
    output.publish("a", ["f2"])

    def come() -> None:
        if event == "lease":
            lease(output, "a", 2)
        else:
            write_record(output.store, f"{output.at}/_meta/pins/p.json", {"snapshot": 1, "seconds": 60})

    between(output, come)
    assert not output.missing(first)


def test_an_expired_snapshot_gets_neither_pin_nor_tag(output: Output) -> None:
    output.publish("a", ["f1"])
    output.publish("a", ["f2"])
    collect(output)
    with pytest.raises(SourceError, match="snapshot 1 has expired"):
        pin_snapshot(output.store, output.at, 1, 60)
    with pytest.raises(SourceError, match="snapshot 1 has expired"):
        create_tag(output.store, output.at, "golden", 1)
    assert not output.store.names(paths.pins_folder(output.at)) and not tags(output.store, output.at)


def test_a_tag_names_one_snapshot(output: Output) -> None:
    store, at = output.store, output.at
    for night in (1, 2):
        output.publish("a", [f"f{night}"])
    create_tag(store, at, "golden", 1)
    create_tag(store, at, "golden", 1)
    assert tags(store, at) == {"golden": 1}
    with pytest.raises(ConfigError, match="golden is a tag of snapshot 1"):
        create_tag(store, at, "golden", 2)
    with pytest.raises(ConfigError, match=r"tag: '\.\./x' must be"):
        create_tag(store, at, "../x", 2)
    remove_tag(store, at, "golden")
    with pytest.raises(SourceError, match="no tag golden"):
        remove_tag(store, at, "golden")


def test_over_s3_ages_are_by_its_clock(bucket: tuple[Store, str]) -> None:
    output = Output(*bucket)
    for night in range(2):
        output.publish("a", [f"f{night}"], [f"o{night}"])
    output.write_file("a", "orphan")
    collect(output)
    assert set(tombstones(output.store, output.at)) == {1} and output.data("a") == {"f0", "f1", "orphan"}
    collect(output, AT_ONCE)
    assert output.data("a") == {"f1", "orphan"} and not output.store.names(paths.pins_folder(output.at))
    later = plan_at(output.store, output.at, RULES, time.time() + 8 * DAY)
    assert later.totals["no snapshot", "data"] == (1, 1000)
