from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pipeline.errors import SourceError
from pipeline.ledger import Ledger, dataset, newest_snapshot
from pipeline.records import Counts, Receipt
from pipeline.storage import Store


def receipt(shard: str) -> Receipt:
    return Receipt(shard, "s", Counts(rows=3, documents=2, vectors=2, rejects=1, tokens=10), 99, "hash", {}, 0.0, 1.0, {"model": "m"})


def test_a_shard_is_done_when_its_receipt_is_there(tmp_path: Path) -> None:
    ledger = Ledger(Store(), str(tmp_path), "f")
    assert ledger.done() == []
    ledger.write_receipt(receipt("b"))
    ledger.write_receipt(receipt("a"))
    assert ledger.done() == ["a", "b"]
    assert list(ledger.read_receipts(["b"])) == [receipt("b")]
    assert Ledger(Store(), str(tmp_path), "other").done() == []


def test_snapshots_count_up_and_the_same_dataset_is_published_once(tmp_path: Path) -> None:
    ledger = Ledger(Store(), str(tmp_path), "f")
    for shard in ("a", "b"):
        ledger.write_receipt(receipt(shard))
    assert ledger.publish_snapshot(["a"], {}).number == 1
    assert ledger.publish_snapshot(["a"], {}).number == 1
    second = ledger.publish_snapshot(["a", "b"], {})
    assert (second.number, second.documents, second.rejects) == (2, 4, 2)
    assert newest_snapshot(Store(), str(tmp_path)) == second
    assert dataset(Store(), str(tmp_path))[1] == second


@pytest.mark.parametrize("where", ["local", "s3"])
def test_racing_runs_take_numbers_in_a_line(where: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    store = Store() if where == "local" else Store(request.getfixturevalue("s3"))
    output = str(tmp_path) if where == "local" else f"s3://corpus/{tmp_path.name}"
    ledgers = [Ledger(store, output, f"f{number}") for number in range(6)]
    for ledger in ledgers:
        ledger.write_receipt(receipt("a"))
    with ThreadPoolExecutor(6) as pool:
        snapshots = list(pool.map(lambda ledger: ledger.publish_snapshot(["a"], {}), ledgers))
    assert sorted(snapshot.number for snapshot in snapshots) == [1, 2, 3, 4, 5, 6]
    newest = newest_snapshot(store, output)
    assert newest is not None
    assert newest.number == 6


def test_no_dataset_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no finished dataset"):
        dataset(Store(), str(tmp_path))
