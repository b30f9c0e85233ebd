"""A dataset that is read again: what `verify` asks of the store and of this machine."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import pytest

from bulkembed import api
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.inspection.verify import verify
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus
from tests.support.runs import in_one_process, simulated


def test_a_receipt_takes_no_thread_of_its_own(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    assert snapshot.files > 1
    started: list[threading.Thread] = []
    monkeypatch.setattr(threading.Thread, "start", started.append)
    assert list(verify(Store(), ledger, snapshot)) == []
    assert started == []


def test_verify_and_its_sample_are_of_one_snapshot(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A snapshot of another source that a run publishes meanwhile is no part of either."""
    from bulkembed.cli.app import main

    for name in ("in", "other"):
        write_corpus(tmp_path / name, files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)

    def published_meanwhile(store: Store, output: str, number: int | None = None) -> object:
        dataset = newest_dataset(store, output, number)
        in_one_process(cfg.model_copy(update={"source": str(tmp_path / "other"), "allow_deletes": 1000}))
        return dataset

    monkeypatch.setattr(api, "newest_dataset", published_meanwhile)
    monkeypatch.setattr(sys, "argv", ["bulkembed"])
    with pytest.raises(SystemExit) as ended:
        main(["verify", "--output", str(tmp_path / "out"), "--sample", "5", "--source", str(tmp_path / "in"), "--seed", "1"])
    assert newest_dataset(Store(), str(tmp_path / "out"))[1].number == 2
    assert ended.value.code == 0
    assert "snapshot 1: " in capsys.readouterr().out
