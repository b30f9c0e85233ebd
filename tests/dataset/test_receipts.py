from pathlib import Path

import pyarrow as pa

from bulkembed.dataset.receipts import Ledger, fingerprints
from bulkembed.records import Counts, Receipt
from bulkembed.storage.store import Store


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


def test_the_run_record_says_what_a_fingerprint_stands_for(tmp_path: Path) -> None:
    ledger, carried = Ledger(Store(), str(tmp_path), "f"), pa.schema([pa.field("id", pa.int64(), nullable=False)])
    assert (ledger.read_run_record(), ledger.read_carried_schema(), fingerprints(Store(), str(tmp_path))) == (None, None, [])
    ledger.write_run_record(carried, {"model": "m"})
    record = ledger.read_run_record()
    assert record is not None
    assert (record["fingerprint"], record["provenance"]) == ("f", {"model": "m"})
    assert ledger.read_carried_schema() == carried
    assert fingerprints(Store(), str(tmp_path)) == ["f"]
