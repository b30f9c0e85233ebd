"""Snapshots that have expired, by the store's clock."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from bulkembed.dataset.store_clock import store_time
from bulkembed.dataset.tombstones import bury, is_expired, require_live, tombstones
from bulkembed.errors import SourceError
from bulkembed.storage.store import Store


def test_a_snapshot_expires_once_and_for_ever(tmp_path: Path) -> None:
    store, output = Store(), str(tmp_path / "out")
    assert tombstones(store, output) == {}
    bury(store, output, 3, "line", "beyond keep")
    written = tmp_path / "out/_meta/tombstones/00000003.json"
    os.utime(written, (1000, 1000))
    bury(store, output, 3, "line", "again")
    assert tombstones(store, output) == {3: 1000.0}
    assert b"beyond keep" in written.read_bytes()


def test_an_expired_snapshot_is_refused_by_name(tmp_path: Path) -> None:
    store, output = Store(), str(tmp_path / "out")
    bury(store, output, 3, "line", "beyond keep")
    require_live(store, output, 2)
    assert not is_expired(store, output, 2)
    with pytest.raises(SourceError, match="snapshot 3 has expired"):
        require_live(store, output, 3)


def test_the_store_tells_the_time_and_keeps_nothing_of_it(tmp_path: Path, s3: dict[str, Any]) -> None:
    for store, output in ((Store(), str(tmp_path / "out")), (Store(s3), "s3://corpus/clock")):
        bury(store, output, 1, "line", "beyond keep")
        now = store_time(store, output)
        assert abs(now - time.time()) < 60
        assert abs(tombstones(store, output)[1] - now) < 60
        assert [item.relative_path for item in store.objects(output)] == ["_meta/tombstones/00000001.json"]
