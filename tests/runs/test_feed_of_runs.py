"""The feeds of real runs: applied to a copy of an earlier night's rows, they give those of a later one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bulkembed
from tests.support.feeds import apply, copy_of, multiset, read
from tests.support.nights import Upstream
from tests.support.runs import in_one_process, simulated

NIGHTS = 3


@pytest.mark.parametrize("long_documents", ["truncate", "chunk"])
def test_feeds_follow_the_nights_of_a_corpus(tmp_path: Path, qwen: str, long_documents: str) -> None:
    source, output = tmp_path / "in", tmp_path / "out"
    upstream = Upstream(seed=3, documents=60, words=12)
    cfg = simulated(source, output, qwen, long_documents=long_documents, max_tokens=24)
    copy: list[dict[str, Any]] = []
    for night in range(1, NIGHTS + 1):
        upstream.write(source)
        summary = in_one_process(cfg)
        assert summary.snapshot is not None
        assert summary.snapshot.number == night
        bulkembed.changes(output, tmp_path / f"feed-{night}", night - 1)
        copy = apply(copy, tmp_path / f"feed-{night}")
        assert multiset(copy) == multiset(copy_of(output, night))
        empty = {row["id"] for row in upstream.rows if not (row["text"] or "").strip()}
        upstream.next_night(60)
    told = bulkembed.changes(output, tmp_path / "all", 1, NIGHTS)
    assert 0 < told.upserts < told.rows / 2
    assert multiset(apply(copy_of(output, 1), tmp_path / "all")) == multiset(copy)
    held = {row["id"] for row in copy}
    gone = [row for row in read(tmp_path / "all", "deletes") if row["id"] not in held]
    assert {row["id"] for row in gone if row["reason"] != "deleted"} == {row["id"] for row in gone} & empty != set()
