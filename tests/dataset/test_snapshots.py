from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import Snapshot, current_text, newest_dataset, newest_snapshot, publish_snapshot
from bulkembed.errors import SourceError, StorageError
from bulkembed.inspection.verify import verify
from bulkembed.records import Counts, Receipt
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, simulated


def receipt(shard: str) -> Receipt:
    return Receipt(shard, "s", Counts(rows=3, documents=2, vectors=2, rejects=1, tokens=10), 99, "hash", {}, 0.0, 1.0, {"model": "m"})


def publish(ledger: Ledger, *shards: str) -> Snapshot:
    return publish_snapshot(ledger, list(shards), "s", {}, lambda newest, following: None)


def test_snapshots_count_up_and_the_same_dataset_is_published_once(tmp_path: Path) -> None:
    ledger = Ledger(Store(), str(tmp_path), "f")
    for shard in ("a", "b"):
        ledger.write_receipt(receipt(shard))
    assert publish(ledger, "a").number == 1
    assert publish(ledger, "a").number == 1
    second = publish(ledger, "a", "b")
    assert (second.number, second.documents, second.rejects) == (2, 4, 2)
    assert newest_snapshot(Store(), str(tmp_path)) == second
    assert newest_dataset(Store(), str(tmp_path))[1] == second


@pytest.mark.parametrize("where", ["local", "s3"])
def test_racing_runs_take_numbers_in_a_line(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = Store() if where == "local" else Store(request.getfixturevalue("s3"))
    output = str(tmp_path) if where == "local" else f"s3://corpus/{tmp_path.name}"
    ledgers = [Ledger(store, output, f"f{number}") for number in range(6)]
    for ledger in ledgers:
        ledger.write_receipt(receipt("a"))
    with ThreadPoolExecutor(6) as pool:
        snapshots = list(pool.map(lambda ledger: publish(ledger, "a"), ledgers))
    assert sorted(snapshot.number for snapshot in snapshots) == [1, 2, 3, 4, 5, 6]
    newest = newest_snapshot(store, output)
    assert newest is not None
    assert newest.number == 6
    assert store.read(f"{output}/current.txt") == current_text(output, newest) == f"{output}/data/{newest.fingerprint}/a.parquet\n".encode()


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """With two shards done."""
    ledger = Ledger(Store(), str(tmp_path), "f")
    for shard in ("a", "b"):
        ledger.write_receipt(receipt(shard))
    return ledger


def current(ledger: Ledger) -> list[str]:
    return [Path(line).stem for line in Path(ledger.output, "current.txt").read_text(encoding="utf-8").splitlines()]


def test_current_txt_is_made_good_after_a_crash_before_it(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(ledger, "a")

    def put(self: Store, uri: str, data: bytes) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Store, "put", put)
        with pytest.raises(KeyboardInterrupt):
            publish(ledger, "a", "b")
    assert current(ledger) == ["a"]
    assert publish(ledger, "a", "b").number == 2, "published already"
    assert current(ledger) == ["a", "b"]
    Path(ledger.output, "current.txt").unlink()
    publish(ledger, "a", "b")
    assert current(ledger) == ["a", "b"]


def test_current_txt_is_of_the_newest_of_two_publishers(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one publishes, and writes its list, between this one's look at the newest snapshot and its write."""
    original, others = Store.put, [lambda: publish(ledger, "a", "b")]

    def put(self: Store, uri: str, data: bytes) -> None:
        if others:
            others.pop()()
        original(self, uri, data)

    monkeypatch.setattr(Store, "put", put)
    assert publish(ledger, "a").number == 1
    assert current(ledger) == ["a", "b"]


def test_the_files_of_a_relative_output_are_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ledger = Ledger(Store(), "out", "f")
    ledger.write_receipt(receipt("a"))
    publish(ledger, "a")
    assert (tmp_path / "out/current.txt").read_text(encoding="utf-8") == f"{tmp_path}/out/data/f/a.parquet\n"


def test_the_guard_sees_the_newest_snapshot_at_every_attempt(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    original, others = Store.create, [lambda: publish(ledger, "a", "b")]
    seen: list[tuple[list[str], list[str]]] = []

    def create(self: Store, uri: str, data: bytes) -> bool:
        if others:
            others.pop()()
        return original(self, uri, data)

    monkeypatch.setattr(Store, "create", create)
    publish_snapshot(ledger, ["a"], "s", {}, lambda newest, following: seen.append((newest.shards, following.shards)))
    assert seen == [(["a", "b"], ["a"])]


def test_no_dataset_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no finished dataset"):
        newest_dataset(Store(), str(tmp_path))


@pytest.mark.parametrize("damaged", [b"", b"{}", b'{"number": 1', b"[1]", b"\xff"])
@pytest.mark.parametrize("name", ["snapshots", "receipts"])
def test_a_damaged_record_is_one_line_that_names_it(tmp_path: Path, qwen: str, name: str, damaged: bytes) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    path = min((tmp_path / "out/_meta" / name).rglob("*.json"))
    path.write_bytes(damaged)
    store, output = Store(), str(tmp_path / "out")
    if name == "receipts":
        assert next(verify(store, *newest_dataset(store, output))).startswith(f"{path}: is damaged: ")
    else:
        with pytest.raises(StorageError, match=f"^{path}: is damaged: "):
            newest_dataset(store, output)
