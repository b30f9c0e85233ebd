"""Runs in the midst of which something else happens to the same output, as a whole, before one of their writes."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from math import inf
from pathlib import Path

import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.heads import rollback
from bulkembed.runs.forget import IdFile, forget, remember
from bulkembed.storage.store import Store
from tests.support.nights import Upstream, WritesUntilKilled, complete_run, sorted_rows
from tests.support.runs import problems, read_dataset, simulated

STORE = Store()
STEP = 12  # of the writes before which it happens; each of the others begins at a write of its own


def the_same_in_other_shards(cfg: RunConfig) -> None:
    complete_run(cfg.model_copy(update={"shards": cfg.shards.model_copy(update={"max_rows": 4})}))


def roll_back(cfg: RunConfig) -> None:
    rollback(STORE, cfg.output, 1)


def erase_and_take_back(cfg: RunConfig) -> None:
    file = IdFile("ids.txt", b"1\n2\n3\n", "id")
    forget(STORE, cfg.output, file)
    remember(STORE, cfg.output, file)


OTHERS: list[Callable[[RunConfig], None]] = [the_same_in_other_shards, roll_back, erase_and_take_back]


def once(act: Callable[[], None]) -> Callable[[], None]:
    """A function that does it on the first call alone, also where it calls that function itself."""
    left = [act]
    return lambda: left.pop()() if left else None


@pytest.mark.parametrize("other", OTHERS)
def test_whatever_happens_before_a_write_of_a_run_the_next_dataset_is_that_of_the_source(
    tmp_path: Path, qwen: str, other: Callable[[RunConfig], None]
) -> None:
    upstream = Upstream(seed=1, documents=20)
    before = simulated(tmp_path / "in", tmp_path / "before", qwen, shards={"max_rows": 6}, allow_deletes=99)
    for _ in range(2):
        upstream.write(tmp_path / "in")
        complete_run(before)
        upstream.next_night(20)
    upstream.write(tmp_path / "in")
    complete_run(before.model_copy(update={"output": str(tmp_path / "scratch")}))
    expected = sorted_rows(read_dataset(tmp_path / "scratch"))
    cfg = before.model_copy(update={"output": str(tmp_path / "out")})
    shutil.copytree(tmp_path / "before", tmp_path / "out")
    with pytest.MonkeyPatch.context() as patched:
        undisturbed = WritesUntilKilled(patched, inf)
        complete_run(cfg)
    for writes in range(OTHERS.index(other), undisturbed.done, STEP):
        shutil.rmtree(tmp_path / "out")
        shutil.copytree(tmp_path / "before", tmp_path / "out")
        with pytest.MonkeyPatch.context() as patched:
            WritesUntilKilled(patched, writes, once(lambda: other(cfg)))
            complete_run(cfg)
        complete_run(cfg)  # what happened last may have been a rollback
        assert sorted_rows(read_dataset(tmp_path / "out")).equals(expected), f"before write {writes}"
        assert problems(tmp_path / "out") == []
