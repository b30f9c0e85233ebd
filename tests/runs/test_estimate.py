"""The estimate of a plan: the truth lies in its interval, whatever lies where, and little is read for it."""

from __future__ import annotations

import gzip
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed import api
from bulkembed.cli.app import app
from bulkembed.cli.console import out
from bulkembed.cli.run_commands import show_estimate
from bulkembed.errors import ConfigError
from bulkembed.records import Counts
from bulkembed.runs import estimate, stages
from bulkembed.runs.estimate import Interval, Prices, cheaper
from bulkembed.runs.lookup import open_job
from bulkembed.shards import Part, Shard
from tests.support.corpora import WORDS, write_corpus, write_jsonl
from tests.support.models import MODEL, recipe
from tests.support.reading import config
from tests.support.runs import in_one_process, simulated

SEEDS = 200
Tokens = npt.NDArray[np.int64]  # of each row of an object


def shards_of(objects: list[Tokens], most_rows: int, known_rows: int) -> list[Shard]:
    """As planned where the bytes of every `known_rows` rows are known, as of JSON lines."""
    shards = []
    for number, tokens in enumerate(objects):
        before = np.concatenate([[0], np.cumsum(tokens * 4.2 + 30)])
        borders = np.minimum(np.arange(0, len(tokens) + known_rows, known_rows), len(tokens))
        for start in range(0, len(tokens), most_rows):
            stop = min(start + most_rows, len(tokens))
            text_bytes = int(np.diff(np.interp([start, stop], borders, before[borders]))[0])
            name = f"{number:06d}"
            shards.append(Shard((Part(name, name, name, "v", "jsonl", start, stop, len(tokens)),), text_bytes))
    return shards


def estimates(objects: list[Tokens], policy: str, most_rows: int = 2048, known_rows: int = 1024) -> tuple[int, list[Interval]]:
    """The truth, and the estimate of each seed."""
    cfg = config(max_tokens=8192, long_documents=policy)
    counted = [np.minimum(tokens, 8192) if policy == "truncate" else tokens for tokens in objects]
    before = [np.concatenate([[0], np.cumsum(tokens)]) for tokens in counted]
    ordered = estimate.in_strata(shards_of(objects, most_rows, known_rows))
    sizes = estimate.weights(ordered, recipe(cfg, replace(MODEL, max_tokens=8192)).vector_key)
    found = []
    for seed in range(SEEDS):
        where, fractions = estimate.draw(sizes, estimate.PLACES, np.random.default_rng(seed))
        places = [estimate.place(ordered[shard], fraction) for shard, fraction in zip(where, fractions, strict=True)]
        parts = [each.parts[0] for each in places]
        tokens = [int(before[int(each.uri)][each.stop] - before[int(each.uri)][each.start]) for each in parts]
        read = [Counts(rows=each.rows, tokens=count) for each, count in zip(places, tokens, strict=True)]
        density = np.array([ordered[shard].rows / sizes[shard] for shard in where])
        found.append(estimate.sample_estimate(read, density, float(sizes.sum())).tokens)
    return sum(int(tokens.sum()) for tokens in counted), found


def lengths(mean: float, spread: float, rows: int, files: int) -> list[Tokens]:
    random = np.random.default_rng(files)
    return [np.maximum(1, random.lognormal(np.log(mean), spread, rows)).astype(np.int64) for _ in range(files)]


SHORT, LONG = lengths(33, 0.5, 1000, 40), lengths(1100, 0.7, 200, 40)
MIXED = [np.random.default_rng(0).permutation(np.concatenate(pair)) for pair in zip(SHORT, LONG, strict=True)]
WORLDS: dict[str, tuple[list[Tokens], int, int]] = {
    "short files, then long ones": (SHORT + LONG, 2048, 1024),
    "long files, then short ones": (LONG + SHORT, 2048, 1024),
    "one file, short documents first": ([np.concatenate(SHORT + LONG)], 2048, 1024),
    "one row group, short documents first": ([np.concatenate(SHORT + LONG)], 2048, 10**6),
    "one shard, long documents first": ([np.concatenate(LONG[:8] + SHORT[:10])], 10**6, 10**6),
    "mixed in every file": (MIXED, 2048, 10**6),
    "web pages": (lengths(150, 1.2, 5000, 42), 2048, 1024),
    "a few at the limit": ([np.where(np.arange(5000) % 500 == number % 500, 8192, 20) for number in range(60)], 2048, 1024),
    "books": (lengths(80_000, 0.6, 50, 43), 2048, 1024),
    "many small objects": (lengths(150, 1.0, 3, 3000), 2048, 1024),
}


@pytest.mark.parametrize("policy", ["truncate", "chunk"])
@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_lies_in_the_interval(name: str, policy: str) -> None:
    objects, most_rows, known_rows = WORLDS[name]
    truth, found = estimates(objects, policy, most_rows, known_rows)
    assert sum(each.low <= truth <= each.high for each in found) >= 0.93 * SEEDS
    best = np.array([each.best for each in found])
    assert abs(best.mean() / truth - 1) < 0.03
    assert np.sqrt(np.mean((best / truth - 1) ** 2)) < 0.1


@given(st.integers(1, 5000), st.integers(0, 10**9), st.floats(0, 1, exclude_max=True))
def test_places_of_a_shard_part_its_rows(rows: int, text_bytes: int, fraction: float) -> None:
    shard = Shard((Part("a", "a", "a", "v", "jsonl", 100, 100 + rows, 10**6, offset=7, skip=3),), text_bytes)
    place = estimate.place(shard, fraction)
    (found,) = place.parts
    assert 1 <= found.rows <= estimate.PLACE_ROWS
    assert found.rows == 1 or text_bytes / rows * found.rows <= estimate.PLACE_BYTES
    row = int(fraction * rows)
    assert found.start - 100 <= row < found.stop - 100 <= rows
    assert found.skip - 3 == found.start - 100
    assert {estimate.place(shard, (each + 0.5) / rows) for each in range(found.start - 100, found.stop - 100)} == {place}


@given(st.lists(st.floats(0.01, 1e9), min_size=1, max_size=30), st.integers(0, 100))
def test_a_place_is_drawn_in_every_part_of_the_line(sizes: list[float], seed: int) -> None:
    where, fractions = estimate.draw(np.array(sizes), 16, np.random.default_rng(seed))
    at = [sum(sizes[:shard]) + fraction * sizes[shard] for shard, fraction in zip(where, fractions, strict=True)]
    part = sum(sizes) / 16
    for number, each in enumerate(at):
        assert number * part * (1 - 1e-6) <= each + 1e-9 * sum(sizes)
        assert each <= (number + 1) * part * (1 + 1e-6)


def write_texts(folder: Path, suffix: str, order: str) -> None:
    """Short documents and long ones, in files of their own or all in one."""
    random = np.random.default_rng(0)

    def file(words: int, rows: int) -> list[dict[str, Any]]:
        return [{"id": n, "text": " ".join(random.choice(WORDS, 1 + int(random.integers(words)))), "lang": "xx"} for n in range(rows)]

    short, long = [file(12, 400) for _ in range(4)], [file(700, 30) for _ in range(4)]
    files = {"short first": short + long, "long first": long + short, "one file": [[row for rows in short + long for row in rows]]}[order]
    folder.mkdir()
    for number, rows in enumerate(files):
        if suffix == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), folder / f"{number}.parquet")
        elif suffix == "jsonl":
            write_jsonl(folder / f"{number}.jsonl", rows)
        else:
            (folder / f"{number}.jsonl.gz").write_bytes(gzip.compress("".join(json.dumps(row) + "\n" for row in rows).encode()))


@pytest.mark.parametrize(
    ("suffix", "order", "policy"),
    [
        ("jsonl", "short first", "truncate"),
        ("jsonl", "long first", "chunk"),
        ("jsonl.gz", "one file", "truncate"),
        ("jsonl.gz", "short first", "reject"),
        ("parquet", "long first", "truncate"),
        ("parquet", "one file", "chunk"),
    ],
)
def test_real_files_whatever_comes_first(
    tmp_path: Path, qwen: str, suffix: str, order: str, policy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_texts(tmp_path / "in", suffix, order)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, max_tokens=512, long_documents=policy, shards={"max_rows": 300})
    job, plan = open_job(cfg)
    whole = sum((stages.prepare(shard, job).counts for shard in plan.pending), Counts())
    exact = estimate.estimate(job, plan.pending)
    assert (exact.tokens, exact.vectors, exact.rejects, exact.places) == (
        Interval(whole.tokens, whole.tokens, whole.tokens),
        whole.vectors,
        whole.rejects,
        0,
    )
    monkeypatch.setattr(estimate, "PLACE_ROWS", 8)
    monkeypatch.setattr(estimate, "PLACE_BYTES", 4096)
    found = estimate.estimate(job, plan.pending)
    assert found.places == estimate.PLACES
    assert found.rows_read < whole.rows / 3
    assert found.tokens.low <= whole.tokens <= found.tokens.high
    assert found.tokens.best == pytest.approx(whole.tokens, rel=0.25 if policy == "reject" else 0.15)
    assert found.vectors == pytest.approx(whole.vectors, rel=0.3)
    assert found.rejects == pytest.approx(whole.rejects, rel=0.3)
    assert estimate.estimate(job, plan.pending) == found, "another estimate of the same plan"


def test_time_that_is_up_makes_fewer_places(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_texts(tmp_path / "in", "jsonl", "short first")
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, max_tokens=512))
    monkeypatch.setattr(estimate, "MAX_SECONDS", 0)
    found = estimate.estimate(job, plan.pending)
    assert estimate.MIN_PLACES <= found.places < 2 * estimate.MIN_PLACES
    assert found.tokens.low < found.tokens.best < found.tokens.high


def test_a_hundred_thousand_objects_are_a_few_reads(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in", files=1)
    job, _ = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, long_documents="chunk"))
    pending = shards_of(lengths(150, 1.0, 30, 1000) * 100, 2048, 1024)
    read: list[Shard] = []

    def prepare(shard: Shard, _: object) -> Any:
        read.append(shard)
        return type("Prepared", (), {"counts": Counts(rows=shard.rows, tokens=shard.text_bytes // 4)})

    monkeypatch.setattr(stages, "prepare", prepare)
    assert estimate.estimate(job, pending).tokens.best == pytest.approx(sum(shard.text_bytes for shard in pending) / 4, rel=0.03)
    assert len(read) == estimate.PLACES


def test_a_giant_document_is_read_once(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "text": "giant " * (3 << 20), "lang": "x"}])
    read: list[Shard] = []

    def prepare(shard: Shard, _: object) -> Any:
        read.append(shard)
        return type("Prepared", (), {"counts": Counts(rows=shard.rows, tokens=64)})

    monkeypatch.setattr(stages, "prepare", prepare)
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen))
    found = estimate.estimate(job, plan.pending)
    assert len(read) == 1
    assert (found.places, found.tokens) == (0, estimate.Interval(64, 64, 64))


def text(tmp_path: Path, qwen: str, prices: Prices | None = None, **changes: Any) -> str:
    with out.capture() as shown:
        show_estimate(api.plan(simulated(tmp_path / "in", tmp_path / "out", qwen, **changes)), prices or Prices())
    return shown.get().removesuffix("\n")


def test_what_is_not_there_to_read(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    (tmp_path / "in" / "part-2.parquet").write_bytes(b"no parquet")
    assert "150 of 150 rows" in text(tmp_path, qwen)
    path = tmp_path / "in" / "part-0.parquet"
    raw = bytearray(path.read_bytes())
    raw[4:400] = bytes(396)  # the pages of the first row group; the footer is whole
    path.write_bytes(raw)
    found = text(tmp_path, qwen)
    assert "100 of 100 rows" in found, "an object that cannot be read is no part of what is pending"
    for other in ("part-1.jsonl", "part-2.parquet", "part-3.jsonl"):
        (tmp_path / "in" / other).unlink()
    (footer_bytes,) = struct.unpack("<I", raw[-8:-4])
    raw[4 : -8 - footer_bytes] = bytes(len(raw) - 12 - footer_bytes)
    path.write_bytes(raw)
    assert text(tmp_path, qwen) == "  estimate     nothing is to be embedded"


def test_nothing_is_pending_and_nothing_can_be_embedded(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": "", "lang": "x"} for n in range(500)])
    assert text(tmp_path, qwen) == "  estimate     nothing is to be embedded"
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, allow_deletes=0)).require_complete()
    assert text(tmp_path, qwen) == "  estimate     nothing is to be embedded"


@pytest.mark.parametrize(
    ("prices", "wanted"),
    [
        (Prices(), ["about 1,000,000 (95 %: 900,000 to 1,100,000) tokens"]),
        (Prices(1000), ["16 min 40 s (95 %: 15 min 00 s to 18 min 20 s) at 1,000 tokens/s"]),
        (Prices(1000, 36), ["10.00 (95 %: 9.00 to 11.00) at 36 an hour"]),
        (Prices(api_price=2), ["2.00 (95 %: 1.80 to 2.20) at 2 a million tokens"]),
        (Prices(1000, 36, 2), ["2.00 (95 %: 1.80 to 2.20) at 2 a million tokens: the API is cheaper"]),
        (Prices(1000, 36, 20), ["at 20 a million tokens: this cluster is cheaper"]),
        (Prices(1000, 36, 11), ["at 11 a million tokens: too close to say which is cheaper"]),
    ],
)
def test_prices(tmp_path: Path, qwen: str, prices: Prices, wanted: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    write_corpus(tmp_path / "in")
    found = estimate.Estimate(Interval(9e5, 1e6, 1.1e6), 10, 0, 10, 64, [])
    monkeypatch.setattr(estimate, "estimate", lambda job, pending: found)
    printed = text(tmp_path, qwen, prices)
    assert all(line in printed for line in wanted)
    assert ("at 36 an hour" in printed) == (prices.price_per_hour is not None)


def test_the_same_price_is_too_close() -> None:
    assert cheaper(Interval(1, 1, 1), Interval(1, 1, 1)) == "too close to say which is cheaper"


@pytest.mark.parametrize(
    ("command", "flags", "message"),
    [
        ("plan", ["--price-per-hour", "3"], "--price-per-hour: needs --tokens-per-second"),
        ("plan", ["--tokens-per-second", "0"], "--tokens-per-second: expected a positive number"),
        ("plan", ["--tokens-per-second", "nan"], "--tokens-per-second: expected a positive number"),
        ("plan", ["--api-price", "-1"], "--api-price: expected a positive number"),
        ("run", ["--api-price", "1"], "belong to an estimate: give --dry-run, or use plan"),
    ],
)
def test_prices_that_make_no_sense_are_refused(command: str, flags: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        app([command, "--source", "in", "--output", "out", "--model", "m", *flags], standalone_mode=False)


@pytest.mark.parametrize("command", [["plan"], ["run", "--dry-run"]])
def test_plan_and_dry_run_show_it(tmp_path: Path, qwen: str, command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    write_corpus(tmp_path / "in")
    places = ["--source", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", qwen]
    app([*command, *places, "--tokens-per-second", "10", "--price-per-hour", "2", "--api-price", "0.5"], standalone_mode=False)
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("  estimate     exactly ", "  time ", "  cost ", "  api "))
    assert "this cluster is cheaper" in printed or "the API is cheaper" in printed
    assert not (tmp_path / "out").exists()
