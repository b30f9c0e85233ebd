"""The feeds of real runs: applied to a copy of an earlier night's rows, they give those of a later one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import bulkembed
from bulkembed.errors import SourceError
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


def test_no_feed_leads_to_or_from_a_trial(tmp_path: Path, qwen: str) -> None:
    upstream = Upstream(seed=1, documents=30)
    upstream.rows[0]["text"] = ""  # a trial keeps no reasons of rejects
    upstream.write(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    for limit in (20, 10):
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, limit=limit)).require_complete()
    for first, last in ((1, 2), (2, 1), (2, 3)):
        with pytest.raises(SourceError, match=rf"snapshot [23] is a trial \(--limit [12]0\).*load snapshot {last} anew \(--from 0\)"):
            bulkembed.changes(tmp_path / "out", tmp_path / "feed", first, last)
    assert bulkembed.changes(tmp_path / "out", tmp_path / "feed", 0, 3).rows == len(copy_of(tmp_path / "out", 3))
