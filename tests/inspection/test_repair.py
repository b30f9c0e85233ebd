"""`verify --repair`: what is damaged is taken back, the next run makes it again, and nothing that is right goes."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bulkembed import api
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.lease_holders import Holder
from bulkembed.dataset.repair import repair
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.errors import AlreadyRunning, StorageError
from bulkembed.inspection.verify import verify
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import lease_of
from bulkembed.storage.store import Store
from tests.support.commands import in_process
from tests.support.corpora import documents, write_jsonl
from tests.support.runs import in_one_process, problems, read_dataset, simulated
from tests.support.stores import DyingAnywhere, Killed


@pytest.fixture
def night(tmp_path: Path, qwen: str) -> RunConfig:
    """The configuration of a finished dataset of two objects, with a reject of a scan."""
    (tmp_path / "in").mkdir()
    rows = documents(60)
    write_jsonl(tmp_path / "in/a.jsonl", [*rows[:30], {"id": 1, "text": None, "lang": "xx"}])
    write_jsonl(tmp_path / "in/b.jsonl", rows[30:])
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, run_key="today")
    in_one_process(cfg)
    assert problems(tmp_path / "out") == []
    return cfg


def flip(path: Path, part: int = 2) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // part] ^= 1
    path.write_bytes(data)


def move_offset(path: Path) -> None:
    table = pq.read_table(path)
    said = {name: text.replace(b'"offsets":[0', b'"offsets":[9') for name, text in table.schema.metadata.items()}
    assert said != table.schema.metadata
    pq.write_table(table.replace_schema_metadata(said), path)


def swap(path: Path) -> None:
    """A file of another version in its place."""
    shutil.copy(next(other for other in sorted(path.parent.iterdir()) if other != path), path)


def say(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def set_column(path: Path, name: str, value: str) -> None:
    table = pq.read_table(path)
    column = pa.array([value] * table.num_rows)
    at = table.schema.get_field_index(name)
    pq.write_table(table.append_column(name, column) if at < 0 else table.set_column(at, table.schema.field(name), column), path)


DATA, RECEIPT, KEYS, SCAN_REJECTS = "data/*/*.parquet", "_meta/receipts/*/*.json", "_meta/keys/*/*.parquet", "_meta/rejects/*/a.*.parquet"
# The object that is harmed, and how; then what verify says of it, and whether the next run has to make something again.
HARMS: dict[str, tuple[str, Callable[[Path], object], str, bool]] = {
    "a data file is lost": (DATA, Path.unlink, "missing", True),
    "a byte of a data file is flipped": (DATA, flip, "its bytes are not those that the snapshot lists", True),
    "a data file is cut": (DATA, lambda path: path.write_bytes(path.read_bytes()[:-9]), "unreadable", True),
    "a data file is another one": (DATA, swap, "its bytes are not those that the snapshot lists", True),
    "a receipt is lost": (RECEIPT, Path.unlink, "missing", False),
    "a receipt is damaged": (RECEIPT, lambda path: path.write_bytes(b"{"), "is damaged", False),
    "a receipt is of other rows": (RECEIPT, lambda path: say(path, tokens=1), "tokens: 1, but the snapshot lists", False),
    "a receipt is of a later version": (RECEIPT, lambda path: say(path, later=1), "is damaged", False),
    "a key file is lost": (KEYS, Path.unlink, "missing", True),
    "a page of a key file is damaged": (KEYS, lambda path: flip(path, 8), "unreadable", True),  # half of the file is its footer
    "a footer of a key file is damaged": (KEYS, move_offset, "unreadable", True),
    "a key file is of another object": (KEYS, swap, "has 30 rows and 0 rejects, the snapshot says 31 and 1", True),
    "rejects of a scan are lost": (SCAN_REJECTS, Path.unlink, "missing", True),
    "rejects of a scan are damaged": (SCAN_REJECTS, lambda path: path.write_bytes(b"x"), "unreadable", True),
    "rejects of a scan have other reasons": (SCAN_REJECTS, lambda path: set_column(path, "reason", "x"), "its rows or reasons", True),
    "rejects of a scan are of a later version": (SCAN_REJECTS, lambda path: set_column(path, "later", "x"), "its columns are", True),
    "a run key is damaged": ("_meta/run_keys/*/*.json", lambda path: path.write_bytes(b"[]"), "is damaged", True),
    "the head is lost": ("_meta/heads/*.json", Path.unlink, "missing", False),
    "current.txt is lost": ("current.txt", Path.unlink, "does not list the files of snapshot", False),
}


def everything(output: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in output.rglob("*") if path.is_file() and path.parent.name not in ("leases", "clock")}


def texts_of(output: Path) -> list[tuple[int, bytes]]:
    table = read_dataset(output).sort_by("id")
    return list(zip(table["id"].to_pylist(), table["content_hash"].to_pylist(), strict=True))


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_repaired_is_made_again_by_the_next_run(harm: str, night: RunConfig, tmp_path: Path) -> None:
    place, hurt, says, is_undone = HARMS[harm]
    before, output = texts_of(tmp_path / "out"), tmp_path / "out"
    path = min(output.glob(place))
    hurt(path)
    assert any(str(path) in problem and says in problem for problem in problems(output))
    rest = {each: data for each, data in everything(output).items() if each.suffix == ".parquet" and each.stem != path.stem}
    done = api.repair(output)
    assert (done.repair.needs_run, done.hopeless) == (is_undone, 0)
    assert rest.items() <= everything(output).items()  # what is right stays
    summary = in_one_process(night)  # of the same run key
    assert (summary.plan.repeated is None) == is_undone
    assert problems(output) == []
    assert texts_of(output) == before
    assert in_one_process(night).plan.repeated is not None


def test_it_says_first_what_it_would_do(night: RunConfig, tmp_path: Path) -> None:
    path = min((tmp_path / "out").glob(DATA))
    flip(path)
    before = everything(tmp_path / "out")
    told = in_process("verify", "--output", tmp_path / "out", "--repair", "--dry-run")
    assert told.returncode == 1
    assert any(line.strip().startswith("to remove") and "receipts" in line for line in told.stdout.splitlines())
    assert str(path) in told.stdout
    assert "rejects" not in told.stdout  # this file has none
    assert everything(tmp_path / "out") == before
    done = in_process("verify", "--output", tmp_path / "out", "--repair")
    assert done.returncode == 0, done.stderr
    assert "run the job again, which makes what is missing" in done.stdout
    assert not path.exists()
    again = in_process("verify", "--output", tmp_path / "out", "--repair")
    assert again.stdout == "snapshot 1: run the job again, which makes what is missing\n"


def test_a_list_of_files_that_is_lost_is_written_again_and_said_to_be(night: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "out/current.txt").unlink()
    done = in_process("verify", "--output", tmp_path / "out", "--repair")
    assert (done.returncode, done.stdout) == (0, "snapshot 1: 1 problem mended\n")
    assert problems(tmp_path / "out") == []


def test_nothing_to_repair_changes_nothing(night: RunConfig, tmp_path: Path) -> None:
    before = {path: data for path, data in everything(tmp_path / "out").items() if "leases" not in str(path)}
    done = in_process("verify", "--output", tmp_path / "out", "--repair")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "snapshot 1: nothing to repair\n"
    assert before == {path: data for path, data in everything(tmp_path / "out").items() if "leases" not in str(path)}


def test_what_cannot_be_read_is_not_taken_for_damaged(night: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = Store.read

    def refused(store: Store, uri: str) -> bytes:
        if "/data/" in uri or "/keys/" in uri:
            raise StorageError(f"reading {uri}: PermissionError: Permission denied")
        return read(store, uri)

    before = everything(tmp_path / "out").keys()
    monkeypatch.setattr(Store, "read", refused)
    done = api.repair(tmp_path / "out")
    assert done.hopeless == len(done.problems) > 1
    assert done.repair.removed == done.repair.receipts == []
    assert before <= everything(tmp_path / "out").keys()


def test_no_repair_beside_a_run_of_another_process(night: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holder, "is_here", False)
    flip(min((tmp_path / "out").glob(DATA)))
    with lease_of(open_job(night)[0]), pytest.raises(AlreadyRunning):
        api.repair(tmp_path / "out")


def test_killed_before_any_write_it_is_gone_on_with(night: RunConfig, tmp_path: Path) -> None:
    """By another repair, or by a run and then another repair."""
    output, template = tmp_path / "out", tmp_path / "template"
    before = texts_of(output)
    first, second = sorted(output.glob(DATA))[:2]
    flip(first)
    flip(min(output.glob(KEYS)), 8)
    next(output.glob(f"_meta/receipts/*/{second.stem}.json")).unlink()
    output.rename(template)
    for k in range(20):
        shutil.copytree(template, output)
        ledger, snapshot = newest_dataset(DyingAnywhere(k), str(output))
        is_killed = True
        with suppress(Killed):
            repair(ledger, snapshot, list(verify(Store(), ledger, snapshot)))
            is_killed = False
        if k % 2:
            with suppress(StorageError):  # it refuses the damaged key file while that stands
                in_one_process(night)
        api.repair(output)
        in_one_process(night)
        assert problems(output) == []
        assert texts_of(output) == before
        if not is_killed:
            break
        shutil.rmtree(output)
    assert k == 6  # the doubt; receipt and data of a file; a key file and its rejects; the lost receipt


def test_rejects_that_an_aborted_attempt_left_are_taken_back(night: RunConfig, tmp_path: Path) -> None:
    """Readers of all rejects would take documents for rejects that are embedded."""
    path = min((tmp_path / "out").glob(DATA))
    left = tmp_path / "out/_meta/rejects" / path.parent.name / path.name
    shutil.copy(min((tmp_path / "out").glob(SCAN_REJECTS)), left)
    assert problems(tmp_path / "out") == [f"{left}: rejects of an attempt that came to nothing: its file has none"]
    assert api.repair(tmp_path / "out").repair.removed == [str(left)]
    in_one_process(night)
    assert problems(tmp_path / "out") == []


def test_only_the_current_dataset_is_repaired(night: RunConfig, tmp_path: Path) -> None:
    """No run makes files of an older snapshot again."""
    told = in_process("verify", "--output", tmp_path / "out", "--repair", "--snapshot", "1")
    assert told.returncode == 2
    assert "--repair: goes without --snapshot" in told.stderr


def test_what_no_snapshot_lists_is_counted_and_is_no_problem(night: RunConfig, tmp_path: Path) -> None:
    path = min((tmp_path / "out").glob(DATA))
    left = path.with_name(f"left{path.name}")
    shutil.copy(path, left)
    told = in_process("verify", "--output", tmp_path / "out")
    assert told.returncode == 0, told.stderr
    assert "1 object," in told.stdout and str(left) in told.stdout and "bulkembed gc" in told.stdout
