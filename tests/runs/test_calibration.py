"""int8 ranges: what they are measured on, how long they hold, and what is said about them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed import stopping
from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.receipts import Ledger
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.dataset.vector_columns import forms_of, stored_values
from bulkembed.embedding import hardware
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import IncompleteError, InterruptedRun
from bulkembed.inspection.verify import verify
from bulkembed.records import Counts, Failure, LostAttempt, Receipt, Sampled, VectorForm
from bulkembed.report import run_text
from bulkembed.runs import calibration, lookup
from bulkembed.runs.calibration import MIN_VECTORS, shares, spread, spread_sample
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.job import Job
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import Summary, finish
from bulkembed.shards import Part, Shard
from bulkembed.storage.store import Store
from bulkembed.vectors import matryoshka, quantize
from tests.support.corpora import WORDS, write_jsonl
from tests.support.runs import live_names, read_dataset, simulated

WIDTH = 64
FORMS = "64:float32,64:int8,32:int8"


def rows(*numbers: int, text: str | None = "") -> list[dict[str, Any]]:
    """Documents; those without text are rejects."""
    return [{"id": n, "text": None if text is None else f"document {n} {WORDS[n % len(WORDS)]}", "lang": "xx"} for n in numbers]


def config(tmp_path: Path, qwen: str, **changes: Any) -> RunConfig:
    return simulated(tmp_path / "in", tmp_path / "out", qwen, vectors=FORMS, **changes)


class Noting(LocalExecutor):
    """Notes the rows that it samples and the shards that it runs."""

    def __init__(self, embedder: SimulatedEmbedder | None = None) -> None:
        super().__init__(embedder or SimulatedEmbedder(WIDTH, 1e9))
        self.sampled: list[Shard] = []
        self.ran: list[Shard] = []

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        self.ran += shards
        return super().run(shards, job)

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        self.sampled += shards
        return super().sample(shards, job)

    @property
    def sampled_rows(self) -> int:
        return sum(shard.rows for shard in self.sampled)


def embed(cfg: RunConfig, executor: LocalExecutor | None = None) -> Summary:
    job, plan = open_job(cfg)
    summary = finish(job, plan, lambda progress: None, executor or Noting())
    summary.require_complete()
    return summary


def least_cosine(output: Path) -> float:
    """Of what the int8 columns of the live rows stand for, with their float32 vectors."""
    _, snapshot = newest_dataset(Store(), str(output))
    table, ranges = read_dataset(output), quantize.int8_ranges_from_text(snapshot.provenance)
    full = stored_values(table, "embedding").astype(np.float32)
    forms = {name: form for name, form in forms_of(snapshot.provenance).items() if form.dtype == "int8"}
    decoded = [(form.dim, quantize.decode_vectors(stored_values(table, name), form, ranges[name])) for name, form in forms.items()]
    assert len(decoded) == 2
    return min(float(matryoshka.cosines(values, full[:, :dim]).mean()) for dim, values in decoded)


def outlook(cfg: RunConfig) -> str:
    return calibration.outlook(open_job(cfg)[0])


def records(output: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(output.glob("_meta/int8_ranges/*/*.json"))]


def test_a_first_run_of_one_document_does_not_set_the_ranges_of_all(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(0))
    cfg = config(tmp_path, qwen)
    assert outlook(cfg) == "to be measured; provisional below 2,048 rows"
    first = embed(cfg)
    assert outlook(cfg) == "provisional, from 1 rows"
    write_jsonl(tmp_path / "in" / "2.jsonl", rows(*range(1, 18)))
    said = "provisional, from 1 rows: this run measures new ranges, and embeds the 1 existing rows again"
    assert said in run_text.plan_text(*open_job(cfg))
    second = embed(cfg)
    assert least_cosine(tmp_path / "out") > 0.999
    assert first.snapshot is not None
    assert second.snapshot is not None
    assert second.snapshot.fingerprint != first.snapshot.fingerprint
    assert second.snapshot.provenance["int8_ranges_rows"] == "18"
    assert [(each["rows"], each["seen"]) for each in records(tmp_path / "out")] == [(1, 1), (18, 18)]
    write_jsonl(tmp_path / "in" / "3.jsonl", rows(20))
    said = "provisional, from 18 rows: this run measures new ranges, and embeds the 18 existing rows again"
    assert said in run_text.plan_text(*open_job(cfg))
    assert list(verify(Store(), *newest_dataset(Store(), str(tmp_path / "out")))) == []


@pytest.mark.parametrize("max_bytes_here", [lookup.MAX_BYTES_HERE, -1])
@pytest.mark.parametrize("changed", ["limit", "replaced"])
def test_provisional_ranges_hold_for_the_rows_that_were_seen_alone(
    tmp_path: Path, qwen: str, changed: str, max_bytes_here: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "MAX_BYTES_HERE", max_bytes_here)  # a large source is read once the run has begun
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(18)))
    if changed == "limit":
        embed(config(tmp_path, qwen, limit=3))
    else:
        embed(config(tmp_path, qwen))
        write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(100, 118)))
    embed(config(tmp_path, qwen, allow_deletes=18))
    assert least_cosine(tmp_path / "out") > 0.999


def test_a_source_that_grows_past_the_least_gets_final_ranges(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    cfg = config(tmp_path, qwen, shards={"max_rows": 1000})
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(100)))
    embed(cfg)
    write_jsonl(tmp_path / "in" / "2.jsonl", rows(*range(100, 3000)))
    executor = Noting()
    embed(cfg, executor)
    assert outlook(cfg) == f"final, from {executor.sampled_rows:,} rows"
    assert MIN_VECTORS <= executor.sampled_rows <= MIN_VECTORS + 10  # as many of each shard
    assert records(tmp_path / "out")[-1]["objects"] == {}
    assert least_cosine(tmp_path / "out") > 0.999
    write_jsonl(tmp_path / "in" / "3.jsonl", rows(*range(3000, 3010)))
    executor = Noting()
    embed(cfg, executor)
    assert (executor.sampled, [shard.rows for shard in executor.ran]) == ([], [10])


def test_a_small_source_that_has_not_grown_has_nothing_to_do(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", [*rows(*range(5)), *rows(5, 6, text=None)])
    write_jsonl(tmp_path / "in" / "2.jsonl", rows(7, 8))
    cfg = config(tmp_path, qwen)
    first, second = embed(cfg), embed(cfg)
    assert (second.plan.pending, second.snapshot) == ([], first.snapshot)
    assert records(tmp_path / "out")[-1]["rows"] == 7
    (tmp_path / "in" / "2.jsonl").unlink()  # what is left was seen
    assert open_job(cfg)[1].pending == []
    assert not open_job(config(tmp_path, qwen, limit=2))[0].needs_int8_ranges


def test_a_source_of_nothing_but_rejects(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(3), text=None))
    cfg = config(tmp_path, qwen, allow_deletes=0)
    summary = embed(cfg)
    assert summary.snapshot is not None
    assert (summary.snapshot.rejects, records(tmp_path / "out")) == (3, [])
    write_jsonl(tmp_path / "in" / "2.jsonl", rows(*range(3, 9)))
    embed(cfg)
    assert least_cosine(tmp_path / "out") > 0.999


class Unlucky(Noting):
    """The second part of its sample fails, is interrupted, or breaks the run."""

    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        for number, outcome in enumerate(super().sample(shards, job)):
            if number == 1 and self.what == "failed":
                yield Failure(shards[number].id, "no such luck")
            elif number == 1 and self.what == "interrupted":
                stopping.stop.request(15)
                return
            elif number == 1 and self.what == "left out":
                return
            elif number == 1:
                raise RuntimeError(self.what)
            else:
                yield outcome


@pytest.mark.parametrize(
    ("what", "error", "code"),
    [
        ("failed", IncompleteError, 1),
        ("interrupted", InterruptedRun, 143),
        ("left out", IncompleteError, 1),
        ("broken", RuntimeError, None),
    ],
)
def test_a_sample_that_is_not_whole_sets_nothing(
    tmp_path: Path, qwen: str, what: str, error: type[BaseException], code: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(50)))
    cfg = config(tmp_path, qwen)
    with pytest.raises(error) as raised, monkeypatch.context() as patched:
        patched.setattr(stopping, "stop", stopping.Stop())
        finish(*open_job(cfg), lambda progress: None, Unlucky(what))
    assert getattr(raised.value, "exit_code", None) == code
    assert what != "failed" or "1.jsonl" in str(raised.value)
    assert what != "failed" or "no such luck" in str(raised.value)
    assert records(tmp_path / "out") == []
    assert not (tmp_path / "out/data").exists()
    embed(cfg)
    assert records(tmp_path / "out")[0]["rows"] == 50


def test_a_lost_attempt_at_a_sample_that_was_made_again_is_no_failure(tmp_path: Path, qwen: str) -> None:
    class Losing(Noting):
        def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
            yield LostAttempt(shards[0].id, "gone", "engine")
            yield from super().sample(shards, job)

    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(5)))
    embed(config(tmp_path, qwen), Losing())
    assert records(tmp_path / "out")[0]["rows"] == 5


def test_two_first_runs_at_once_use_the_same_ranges(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(50)))
    cfg = config(tmp_path, qwen)
    late = open_job(cfg)
    first = embed(cfg)

    class Other(SimulatedEmbedder):
        def _embed(self, documents: Any) -> Any:
            return super()._embed(documents) + np.float32(1e-3)

    executor = Noting(Other(WIDTH, 1e9))
    second = finish(*late, lambda progress: None, executor)
    assert (len(executor.sampled), executor.ran) == (3, [])
    assert second.snapshot == first.snapshot
    assert len(records(tmp_path / "out")) == 1


def test_a_run_that_saw_more_at_the_same_time_sets_the_next_ranges(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(50)))
    late = open_job(config(tmp_path, qwen))
    embed(config(tmp_path, qwen, limit=3))
    finish(*late, lambda progress: None, Noting()).require_complete()
    assert [each["rows"] for each in records(tmp_path / "out")] == [3, 50]
    assert least_cosine(tmp_path / "out") > 0.999


def test_the_run_is_written_down_under_the_fingerprint_with_its_ranges_alone(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(5)))
    summary = embed(config(tmp_path, qwen))
    assert summary.snapshot is not None
    assert {path.stem for path in tmp_path.glob("out/_meta/runs/*")} == {summary.snapshot.line, summary.snapshot.fingerprint}
    assert [path.name for path in tmp_path.glob("out/data/*")] == [summary.snapshot.fingerprint]
    (receipt,) = tmp_path.glob("out/_meta/receipts/*/*.json")
    assert json.loads(receipt.read_text())["provenance"]["int8_ranges_rows"] == "5"


def test_an_unreadable_object_is_named_once_although_the_run_plans_again(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(5)))
    (tmp_path / "in" / "2.parquet").write_bytes(b"no parquet")
    summary = finish(*open_job(config(tmp_path, qwen, skip_unreadable=True)), lambda progress: None, Noting())
    assert summary.snapshot is not None
    assert summary.snapshot.unreadable == [f"{tmp_path}/in/2.parquet"]


def test_rejects_that_come_good_are_measured(tmp_path: Path, qwen: str) -> None:
    class Blind(SimulatedEmbedder):
        """Makes a vector of short documents alone."""

        def _embed(self, documents: Any) -> Any:
            vectors = super()._embed(documents)
            vectors[[len(ids) > shortest for ids in documents]] = np.nan
            return vectors

    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", [{"id": n, "text": "word " * (1 + n), "lang": "xx"} for n in range(18)])
    cfg, shortest = config(tmp_path, qwen), 3
    assert embed(cfg, Noting(Blind(WIDTH, 1e9))).progress.counts.documents < 4
    summary = finish(*open_job(cfg, {"bad_vector"}), lambda progress: None, Noting())  # as `retry-rejects` does
    assert summary.snapshot is not None
    assert (summary.snapshot.documents, summary.snapshot.rejects) == (18, 0)
    assert least_cosine(tmp_path / "out") > 0.999


@pytest.mark.parametrize("bad", [0.0, 0.5, 0.97])
def test_the_sample_grows_until_it_has_enough_and_no_further(tmp_path: Path, qwen: str, bad: float) -> None:
    """Also where rejects, and shards of few rows, leave little of it."""
    random = np.random.default_rng(0)
    (tmp_path / "in").mkdir()
    good = 0
    for name, count, first in [("a", 3, 0), ("b", 12_000, 10), ("c", 1, 13_000), ("d", 700, 14_000)]:
        lines = [rows(first + n, text=None if n and random.random() < bad else "")[0] for n in range(count)]
        good += sum(line["text"] is not None for line in lines)
        write_jsonl(tmp_path / "in" / f"{name}.jsonl", lines)
    cfg = config(tmp_path, qwen, shards={"max_rows": 9000})
    executor = Noting()
    job, plan = open_job(cfg)
    found = calibration.measure(job, plan.pending, executor.sample)
    parts = [part for shard in executor.sampled for part in shard.parts]
    assert len({(part.object_id, row) for part in parts for row in part.object_rows}) == executor.sampled_rows
    if bad == 0.97:
        assert found.seen == found.vectors == good
        assert not found.is_final
    else:
        assert found.is_final
        assert found.vectors < 2 * MIN_VECTORS
        assert {part.uri[-7:] for part in parts} == {"a.jsonl", "b.jsonl", "c.jsonl", "d.jsonl"}
    again = calibration.measure(job, plan.pending, Noting().sample)
    assert again.texts == found.texts


def test_a_spread_sample_books_is_not_thousands_of_books(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", [{"id": n, "text": f"book {n} of words, " * 300, "lang": "xx"} for n in range(60)])
    cfg = config(tmp_path, qwen, long_documents="chunk", chunk_tokens=16)
    job, plan = open_job(cfg)
    found = calibration.measure(job, plan.pending, Noting().sample)
    assert found.is_final
    assert found.vectors < 2 * MIN_VECTORS
    assert found.seen < 60


@given(st.lists(st.integers(1, 300), min_size=1, max_size=300), st.lists(st.integers(1, 5000), min_size=1, max_size=4))
def test_shares_reach_what_is_asked_evenly_and_never_shrink(sizes: list[int], asked: list[int]) -> None:
    taken: dict[int, int] = {}
    for wanted in sorted(asked):
        found = shares(sizes, taken, wanted)
        assert sum(found.values()) >= min(wanted, sum(sizes))
        assert all(found[number] >= count for number, count in taken.items())
        assert all(0 <= count <= sizes[number] for number, count in found.items())
        if not taken:
            most = max(found.values())
            assert all(count in (most, sizes[number]) for number, count in found.items())
            assert sum(found.values()) < wanted + len(found)
        taken = found


@given(st.integers(1, 1000), st.integers(0, 8))
def test_twice_as_many_spread_numbers_hold_the_half(total: int, doublings: int) -> None:
    assert set(spread(total, 2**doublings)) <= set(spread(total, 2 ** (doublings + 1)))
    assert len(spread(total, 2**doublings)) == min(total, 2**doublings)


def test_a_sample_is_taken_from_the_whole_source() -> None:
    pending = [Shard((Part(f"o{number}", "u", "p", "v", "jsonl", 10, 110, 200, offset=7, skip=5),), 9) for number in range(500)]
    pieces = spread_sample(pending, 640)
    assert sum(piece.rows for piece in pieces) == 640
    assert len(pieces) == calibration.SAMPLE_SHARDS
    assert (pieces[0].parts[0].object_id, pieces[-1].parts[0].object_id) == ("o0", "o492")
    assert {(piece.parts[0].start, piece.parts[0].skip, piece.text_bytes) for piece in pieces} == {(10, 5, 0)}
    later = calibration.sample_pieces(pending, {3: 20}, {3: 30})
    assert [(part.start, part.stop, part.skip) for piece in later for part in piece.parts] == [(30, 40, 25)]


def test_clipped_components_are_counted_and_warned_of(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(50)))
    cfg = config(tmp_path, qwen)
    job, _ = open_job(cfg)
    few = open_job(config(tmp_path, qwen, limit=3))[1].pending
    small = replace(calibration.measure(job, few, Noting().sample), vectors=MIN_VECTORS)
    job.ledger.create_int8_ranges(1, small.to_record())  # as if 2,048 rows had been like the first 3
    summary = embed(cfg)
    counts = summary.progress.counts
    full = stored_values(read_dataset(tmp_path / "out"), "embedding").astype(np.float32)
    expected = 0
    for name, form in job.int8_columns.items():
        low, high = small.columns[name]
        level = np.rint((matryoshka.cut_vectors(full, form.dim) - low) / ((high - low) / 255))
        expected += int(np.count_nonzero((level < 0) | (level > 255)))
    assert (counts.clipped, counts.int8_components) == (expected, 50 * 96)
    assert expected > 48
    said = run_text.summary_text(summary.job, summary, 95.0)
    assert f"clipped      {expected:,} components of 4,800 of int8 vectors ({expected / 4800:.3%})" in said
    assert "warning" in said
    assert " tokens/s while embedding, 1 min 35 s in all" in said
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    assert sum(receipt.counts.clipped for receipt in ledger.read_receipts(live_names(tmp_path / "out"))) == expected
    assert any(f"{expected / 4800:.1%} of the components of int8 vectors" in problem.text for problem in verify(Store(), ledger, snapshot))
    assert calibration.clipped_warning(Counts(int8_components=1000, clipped=10)) is None


def test_noise_outside_the_ranges_of_one_row_is_not_clipped() -> None:
    vector = np.random.default_rng(0).standard_normal((1, WIDTH)).astype(np.float32)
    unit = matryoshka.cut_vectors(vector, WIDTH)
    form = VectorForm(WIDTH, "int8")
    ranges = quantize.widen_int8_ranges(quantize.measure_int8_ranges(unit, WIDTH))
    noisy = unit * np.random.default_rng(1).normal(1, 1e-3, unit.shape).astype(np.float32)
    values, clipped = quantize.encode_counting_clipped(noisy, form, ranges)
    assert clipped == 0
    assert float(matryoshka.cosines(quantize.decode_vectors(values, form, ranges), noisy)[0]) > 0.999999


def test_a_run_with_int8_columns_goes_on_in_the_dtype_it_was_begun_in(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "1.jsonl", rows(*range(5)))
    monkeypatch.setattr(hardware, "engine_dtype", lambda address: "bfloat16")
    embed(config(tmp_path, qwen))
    monkeypatch.setattr(hardware, "engine_dtype", lambda address: "float32")
    job, plan = open_job(config(tmp_path, qwen))
    assert (job.engine.dtype, plan.pending) == ("bfloat16", [])


def test_ranges_are_kept_under_the_key_of_the_configuration(tmp_path: Path) -> None:
    ledger = Ledger(Store(), str(tmp_path), "key")
    assert ledger.read_int8_ranges(dict) == (0, None)
    ledger.create_int8_ranges(1, {"rows": 1})
    ledger.create_int8_ranges(1, {"rows": 2})
    assert ledger.read_int8_ranges(dict) == (1, {"rows": 1})
