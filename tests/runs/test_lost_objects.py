"""Objects of an output that are lost in the midst of a run: it goes on, or ends in one line that names them, and the next run is right."""

from __future__ import annotations

import shutil
from math import inf
from pathlib import Path

import pytest

from bulkembed.errors import BulkembedError, in_one_line
from tests.support.nights import Killed, Upstream, WritesUntilKilled, complete_run, sorted_rows
from tests.support.runs import problems, read_dataset, simulated

KINDS = ["data", "_meta/keys", "_meta/receipts", "_meta/rejects", "_meta/manifests", "_meta/snapshots", "_meta/runs"]
KILLED_AT = 12  # of the writes of the night: it has written key files and some data
STEP = 12  # of the writes before which objects are lost


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_lost_in_mid_run_costs_no_row(tmp_path: Path, qwen: str, kind: str) -> None:
    upstream, before, out = Upstream(seed=2, documents=20), tmp_path / "before", tmp_path / "out"
    cfg = simulated(tmp_path / "in", out, qwen, shards={"max_rows": 6}, allow_deletes=99)
    for _ in range(2):
        upstream.write(tmp_path / "in")
        complete_run(cfg.model_copy(update={"output": str(before)}))
        upstream.next_night(20)
    upstream.write(tmp_path / "in")
    complete_run(cfg.model_copy(update={"output": str(tmp_path / "scratch")}))
    expected = sorted_rows(read_dataset(tmp_path / "scratch"))
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        WritesUntilKilled(patched, KILLED_AT)
        complete_run(cfg.model_copy(update={"output": str(before)}))
    there = [path.relative_to(before) for path in before.glob(f"{kind}/**/*") if path.is_file()]
    assert there

    def lose() -> None:
        for path in there:
            (out / path).unlink(missing_ok=True)

    shutil.copytree(before, out)
    with pytest.MonkeyPatch.context() as patched:
        undisturbed = WritesUntilKilled(patched, inf)
        complete_run(cfg)
    for writes in range(KINDS.index(kind) % STEP, undisturbed.done, STEP):
        shutil.rmtree(out)
        shutil.copytree(before, out)
        with pytest.MonkeyPatch.context() as patched:
            WritesUntilKilled(patched, writes, lose)
            try:
                complete_run(cfg)
            except BulkembedError as error:
                assert in_one_line(str(error)) == str(error)
                assert str(out) in str(error)
        shutil.copytree(before / kind, out / kind, dirs_exist_ok=True)  # as from a backup
        complete_run(cfg)
        assert sorted_rows(read_dataset(out)).equals(expected), f"before write {writes}"
        assert problems(out) == []
