"""Random nights: what reaches the engine, and what the dataset is afterwards."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import run
from scripts.benchmarks.night_requests import one_changed_object
from tests.support.nights import CountingEmbedder, Upstream, sorted_rows
from tests.support.runs import problems, read_dataset, simulated

NIGHTS = 5
CHUNKS = {"long_documents": "chunk", "chunk_tokens": 20, "chunk_overlap": 4, "max_tokens": 1024}
SHARDS = {"max_rows": 70}
VARIANTS: dict[str, dict[str, Any]] = {
    "whole documents": {},
    "chunks": CHUNKS,
    "long documents rejected": {"long_documents": "reject", "max_tokens": 32, "vectors": "64:float16,64:binary", "allow_deletes": 300},
}


def embedded(cfg: RunConfig) -> list[bytes]:
    """The token ids of every document that a run sends to the engine."""
    embedder = CountingEmbedder()
    run(cfg, lambda progress: None, LocalExecutor(embedder)).require_complete()
    return embedder.seen


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_night_embeds_new_contents_once_and_equals_a_run_from_scratch(tmp_path: Path, qwen: str, variant: str) -> None:
    upstream = Upstream(seed=sorted(VARIANTS).index(variant), documents=300, words=8 if variant == "chunks" else 4)
    before, contents = set[bytes](), set[str]()
    for night in range(NIGHTS):
        upstream.write(tmp_path / "in")
        in_the_night = embedded(simulated(tmp_path / "in", tmp_path / "out", qwen, shards=SHARDS, **VARIANTS[variant]))
        scratch = tmp_path / f"scratch-{night}"
        from_scratch = embedded(simulated(tmp_path / "in", scratch, qwen, shards=SHARDS, **VARIANTS[variant]))
        assert Counter(in_the_night) == Counter(ids for ids in from_scratch if ids not in before)
        found = read_dataset(tmp_path / "out")
        assert sorted_rows(found).equals(sorted_rows(read_dataset(scratch)))
        if variant == "whole documents":
            assert len(in_the_night) == len(upstream.contents() - contents)
            assert Counter(found["id"].to_pylist()) == Counter(row["id"] for row in upstream.rows if row["text"] in upstream.contents())
        before, contents = set(from_scratch), upstream.contents()
        upstream.next_night(300)
    assert problems(tmp_path / "out") == []


def test_a_night_with_one_changed_object_asks_for_nothing_that_grows_with_the_others() -> None:
    few, many = one_changed_object(20), one_changed_object(60)
    requests = [{name: count for name, count in row.items() if name.startswith(("get ", "put ", "head "))} for row in (few, many)]
    assert requests[0] == requests[1]
    assert requests[0]["put data"] <= 2
