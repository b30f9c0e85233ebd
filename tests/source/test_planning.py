import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.errors import SourceError
from bulkembed.shards import ShardId
from bulkembed.source import planning
from bulkembed.source.objects import source_objects
from bulkembed.source.planning import ShardPlan
from bulkembed.storage.store import Store
from tests.support.corpora import write_corpus, write_jsonl


def planned(source: Path, done: list[str] | None = None, max_rows: int = 20, limit: int | None = None) -> ShardPlan:
    store = Store()
    return planning.plan(store, source_objects(store, str(source)), done or [], max_rows, limit, lambda item, layout: None)


def covered_rows(plan: ShardPlan) -> list[tuple[str, int]]:
    ids = [*plan.done, *(shard.id for shard in plan.pending)]
    return [(name, row) for name, start, stop, _ in map(ShardId.parse, ids) for row in range(start, stop)]


def test_ids_come_from_the_data(tmp_path: Path) -> None:
    write_corpus(tmp_path / "a")
    first = [shard.id for shard in planned(tmp_path / "a").pending]
    assert first == [shard.id for shard in planned(tmp_path / "a").pending]
    assert first == sorted(first)
    write_jsonl(tmp_path / "a" / "part-00.jsonl", [{"id": 1, "text": "new"}])
    assert set(first) < {shard.id for shard in planned(tmp_path / "a").pending}


def test_a_changed_object_gets_new_ids_and_the_others_keep_theirs(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    before = {shard.id for shard in planned(tmp_path).pending}
    write_jsonl(tmp_path / "part-1.jsonl", [{"id": 1, "text": "changed"}])
    after = {shard.id for shard in planned(tmp_path).pending}
    assert set(before - after) == {each for each in before if each.startswith("part-1.")}


@given(done_rows=st.integers(1, 30), now_rows=st.integers(1, 30), part=st.integers(0, 100))
def test_other_shard_sizes_resume_the_same_rows(tmp_path_factory: pytest.TempPathFactory, done_rows: int, now_rows: int, part: int) -> None:
    source = tmp_path_factory.getbasetemp() / "sizes"
    if not source.exists():
        write_corpus(source)
    everything = [shard.id for shard in planned(source, max_rows=done_rows).pending]
    resumed = planned(source, done=everything[: len(everything) * part // 100], max_rows=now_rows)
    rows = covered_rows(resumed)
    assert len(rows) == len(set(rows)) == 200


def test_finished_objects_are_not_opened_again(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    done = [shard.id for shard in planned(tmp_path).pending]
    for path in tmp_path.iterdir():  # of the same version, but no document can be read any more
        before = path.stat()
        path.write_bytes(bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    again = planned(tmp_path, done=done)
    assert (again.pending, again.failures) == ([], [])
    assert planned(tmp_path, done=done[1:]).failures != []


def test_limit_takes_the_first_rows_and_a_full_run_goes_on_from_there(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    limited = planned(tmp_path, limit=70)
    assert limited.rows_pending == 70
    done = [shard.id for shard in limited.pending]
    assert planned(tmp_path, done=done, limit=70).pending == []
    rest = planned(tmp_path, done=done)
    assert rest.rows_pending == 130
    assert len(set(covered_rows(rest))) == 200


@given(done_rows=st.integers(1, 30), part=st.integers(0, 100), limit=st.integers(1, 250), trial=st.integers(1, 250))
def test_a_limit_is_exact_whatever_is_done(
    tmp_path_factory: pytest.TempPathFactory, done_rows: int, part: int, limit: int, trial: int
) -> None:
    source = tmp_path_factory.getbasetemp() / "limits"
    if not source.exists():
        write_corpus(source)
    everything = [shard.id for shard in planned(source, max_rows=done_rows).pending]
    done = everything[: len(everything) * part // 100]
    done += [shard.id for shard in planned(source, done=done, limit=trial).pending]
    rows = covered_rows(planned(source, done=sorted(done), limit=limit))
    assert sorted(rows) == sorted(covered_rows(planned(source)))[:limit]


def test_a_trial_costs_the_whole_nothing(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    everything = [shard.id for shard in planned(tmp_path).pending]
    trial = [shard.id for shard in planned(tmp_path, done=everything, limit=7).pending]
    assert [ShardId.parse(shard_id).row_range for shard_id in trial] == [(0, 7)]
    assert planned(tmp_path, done=sorted(everything + trial)).done == everything
    assert planned(tmp_path, done=sorted(everything + trial), limit=7).done == trial


def test_corrupt_objects_are_named_and_the_others_planned(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "part-0.parquet").write_bytes(b"PAR1 this is no parquet file PAR1")
    (tmp_path / "part-9.parquet").write_bytes(b"")
    plan = planned(tmp_path)
    assert [Path(failure.where).name for failure in plan.failures] == ["part-0.parquet", "part-9.parquet"]
    assert plan.rows_pending == 150


def test_empty_files_hold_no_shards(tmp_path: Path) -> None:
    write_corpus(tmp_path)
    (tmp_path / "empty.jsonl").write_bytes(b"\n\n")
    pq.write_table(pa.table({"id": pa.array([], pa.int64()), "text": pa.array([], pa.string())}), tmp_path / "none.parquet")
    assert planned(tmp_path).rows_pending == 200
    assert planned(tmp_path).failures == []


def test_hidden_and_other_files_are_left_out(tmp_path: Path) -> None:
    write_corpus(tmp_path, files=1)
    (tmp_path / "_SUCCESS").touch()
    (tmp_path / "README.md").touch()
    (tmp_path / "_staging").mkdir()
    write_jsonl(tmp_path / "_staging" / "x.jsonl", [{"id": 1, "text": "x"}])
    assert len(planned(tmp_path).objects) == 1


@pytest.mark.parametrize(("uri", "count"), [("{}", 4), ("{}/", 4), ("{}/*.parquet", 2), ("{}/part-1.jsonl", 1), ("file://{}", 4)])
def test_a_source_is_a_prefix_a_glob_or_one_object(tmp_path: Path, uri: str, count: int) -> None:
    write_corpus(tmp_path)
    objects = source_objects(Store(), uri.format(tmp_path))
    assert len(objects) == count
    assert all("/" not in item.relative_path for item in objects)


@pytest.mark.parametrize("name", ["nothing-here", "."])
def test_a_source_without_documents_is_an_error(tmp_path: Path, name: str) -> None:
    with pytest.raises(SourceError, match=r"expected|none of them"):
        source_objects(Store(), str(tmp_path / name))


def test_shards_know_their_text_and_are_halved_where_it_is_too_much(tmp_path: Path) -> None:
    rows = [{"id": number, "text": "x" * (10 if number < 40 else 1000), "other": "y" * 5000} for number in range(80)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet", row_group_size=20, use_dictionary=False)
    write_jsonl(tmp_path / "b.jsonl", [{"id": row["id"], "text": row["text"]} for row in rows])
    store = Store()
    objects = source_objects(store, str(tmp_path))
    plan = planning.plan(store, objects, [], 40, None, lambda item, layout: None, ["text"], max_text_bytes=25_000)
    assert len(set(covered_rows(plan))) == len(covered_rows(plan)) == 160
    parquet = [shard for shard in plan.pending if shard.parts[0].format == "parquet"]
    assert [shard.rows for shard in parquet] == [40, 20, 20]
    assert 400 <= parquet[0].text_bytes < 1500
    assert all(20_000 <= shard.text_bytes <= 25_000 for shard in parquet[1:])
    lines = [shard for shard in plan.pending if shard.parts[0].format == "jsonl"]
    assert sum(shard.text_bytes for shard in lines) == pytest.approx((tmp_path / "b.jsonl").stat().st_size, abs=len(lines))
    assert all(shard.text_bytes <= 25_000 for shard in lines)
