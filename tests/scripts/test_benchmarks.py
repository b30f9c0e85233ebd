"""The benchmarks' own arithmetic and material, and that their command line stands. Nothing is measured here."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from bulkembed.embedding.settings_file import read_json
from bulkembed.records import Counts, Receipt
from scripts.benchmarks import __main__ as command_line
from scripts.benchmarks import ablations, devices, difference, limit, material, peer_variants, peers, ratio, scale, tail
from scripts.benchmarks.job import JobRun
from scripts.benchmarks.material import LENGTH_MEDIAN, LENGTH_SIGMA, MIN_LENGTH
from scripts.benchmarks.measuring import CommandRun
from scripts.benchmarks.peer_variants import Variant, Work
from tests.support.processes import PATIENCE


def job_run(*spans: tuple[float, float, int]) -> JobRun:
    """A run that began at 100 and took 60 seconds; spans: start and end of each shard on the engine, and its tokens."""
    receipts = [
        Receipt(f"{number}", "", Counts(tokens=tokens, documents=tokens // 10), 0, "", {}, began, ended, {})
        for number, (began, ended, tokens) in enumerate(spans)
    ]
    return JobRun(CommandRun("", 2e9, 100.0, 1.5, 60.0), receipts)


def test_synthetic_lengths_have_the_stated_distribution() -> None:
    unclipped = material.token_counts(50_000, 10**9)
    logarithms = np.log(unclipped[unclipped > MIN_LENGTH])
    assert abs(float(np.median(unclipped)) / LENGTH_MEDIAN - 1) < 0.02
    assert abs(float(logarithms.std()) - LENGTH_SIGMA) < 0.02
    clipped = material.token_counts(50_000, 256)
    assert clipped.min() >= MIN_LENGTH
    assert clipped.max() == 256
    assert (clipped == np.minimum(unclipped, 256)).all()


def test_synthetic_corpora_are_the_same_every_time() -> None:
    lengths = material.token_counts(100, 64)
    assert (lengths == material.token_counts(100, 64)).all()
    assert (lengths != material.token_counts(100, 64, seed=1)).any()
    texts = material.texts_of(lengths, ["often", "rarely"], [9, 1])
    assert texts == material.texts_of(lengths, ["often", "rarely"], [9, 1])
    assert [len(text.split()) for text in texts] == lengths.tolist()
    words = " ".join(texts).split()
    assert abs(words.count("often") / len(words) - 0.9) < 0.02


def test_the_rate_is_of_the_time_on_the_engine_and_the_phases_make_up_the_wall() -> None:
    run = job_run((110.0, 120.0, 1000), (120.0, 130.0, 3000))
    assert run.rate == 4000 / 20
    phases = run.phases()
    assert phases == {"planning_s": 1.5, "cold_start_s": 8.5, "embedding_s": 20.0, "publishing_s": 30.0}
    assert math.isclose(sum(phases.values()), run.process.wall)


def test_the_ratio_is_the_median_of_the_rounds_own_ratios() -> None:
    script = {"tokens": 4000, "documents": 400, "memory": 1e9, "engine_seconds": 8}
    pairs = [(script | {"seconds": seconds}, job_run((110.0, 110.0 + spent, 4000))) for seconds, spent in [(10, 20), (40, 20), (18, 20)]]
    found = ratio.compare(pairs)
    assert found["ratios"] == [0.5, 2.0, 0.9]
    assert found["ratio"] == 0.9
    assert found["job_tokens_per_s"] == 200
    assert found["ceiling_tokens_per_s"] == 222
    assert found["engine_calls_tokens_per_s"] == 500
    with pytest.raises(SystemExit, match="the same tokens"):
        ratio.compare([(script | {"tokens": 3999, "seconds": 1}, pairs[0][1])])


@pytest.mark.engine
def test_the_plain_script_embeds_and_writes_every_document(minilm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ratio, "WORK", tmp_path)
    material.write_corpus(tmp_path / "in", range(8), [f"document {number} " * (number + 1) for number in range(8)])
    found = ratio.run_plain("minilm", tmp_path / "in", shard_rows=3)
    assert (found["documents"], found["tokens"]) == (8, sum(2 + 2 * (number + 1) for number in range(8)))
    assert 0 < found["engine_seconds"] <= found["seconds"]
    written = [pq.read_table(path) for path in sorted((tmp_path / "out-plain").glob("*.parquet"))]
    assert [table["id"].to_pylist() for table in written] == [[0, 1, 2], [3, 4, 5], [6, 7]]
    for name in ("embedding_384", "embedding_128"):
        assert np.allclose(np.linalg.norm(np.stack(pa.concat_tables(written)[name].to_numpy()), axis=1), 1, atol=1e-5)


def test_the_limit_counts_the_products_that_every_token_needs(qwen: str, minilm: str) -> None:
    config = read_json(Path(qwen) / "config.json")
    hidden, keys = config["hidden_size"], config["num_key_value_heads"] * config["head_dim"]
    queries, inner = config["num_attention_heads"] * config["head_dim"], config["intermediate_size"]
    layer = hidden * (queries + 2 * keys) + queries * hidden + 3 * hidden * inner
    last = 2 * hidden * keys  # its queries and all behind them are needed of the last token alone
    assert sum(math.prod(shape) for shape in limit.matrices(Path(qwen))) == (config["num_hidden_layers"] - 1) * layer + last
    # Mean pooling needs every layer of every token.
    assert sum(math.prod(shape) for shape in limit.matrices(Path(minilm))) == 6 * (4 * 384 * 384 + 2 * 384 * 1536)


def test_the_ideal_of_the_long_shard_has_every_device_busy_to_the_end() -> None:
    assert tail.ideal_seconds(320_000, devices=16, rate=20_000) == 1
    for place, number in [("first", 0), ("middle", 2), ("last", 4)]:
        sizes = np.array(tail.sizes(5, place)).reshape(5, tail.SHARD_ROWS)
        assert (sizes[number] == tail.CHARACTERS * tail.LONG_FACTOR).all()
        assert (np.delete(sizes, number, axis=0) == tail.CHARACTERS).all()


def test_what_devices_lose_as_they_start_is_told_from_the_tail() -> None:
    late = job_run(
        *((103.0, 104.0 + second, 100) for second in range(20))
    )  # one shard a second, of 100 tokens: three seconds late, by `embedding_began`
    assert late.embedding_began == 103.0
    assert tail.lost_at_start(late, devices=1, rate=100) == 0.0
    assert tail.lost_at_start(job_run((101.0, 104.0, 100), *((103.0, 105.0 + n, 100) for n in range(20))), 1, 100) == 2.0


def test_the_steady_rate_leaves_the_beginning_and_the_end_out() -> None:
    slow_at_the_ends = [(0.0, 50.0, 10), *((0.0, 60.0 + each, 10) for each in range(8)), (0.0, 500.0, 10)]
    assert devices.steady_rate(job_run(*slow_at_the_ends).receipts) == 10
    with pytest.raises(SystemExit, match="--seconds"):
        devices.steady_rate(job_run((0.0, 1.0, 10)).receipts)


def test_every_order_calls_every_document_once() -> None:
    lengths = material.token_counts(1200, 256)
    for order in ablations.ORDERS:
        calls = ablations.calls_of(order, lengths)
        assert sorted(np.concatenate(calls).tolist()) == list(range(1200))
    assert len(ablations.calls_of("order-buckets", lengths)) > len(ablations.calls_of("order-source", lengths))


A_ROW_THAT_WAITS = """
import os
from scripts.benchmarks import __main__ as command_line, measuring

def waits():
    yield {"output": measuring.run_command(["sleep", "60"], os.environ, sample, every=0.05).output}

def sample(pid):
    print(pid, flush=True)
    return 0.0

command_line.app.command()(command_line.command_for(waits))
command_line.main()
"""


def test_what_a_benchmark_has_started_ends_with_it() -> None:
    arguments = [sys.executable, "-c", A_ROW_THAT_WAITS, "waits"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as bench:
        assert bench.stdout is not None
        sampled = psutil.Process(int(bench.stdout.readline()))
        bench.terminate()
        assert bench.wait(PATIENCE) != 0
    assert not sampled.is_running()


def test_the_help_lists_every_row_with_a_whole_sentence_and_shows_defaults() -> None:
    shown = CliRunner().invoke(command_line.app, ["--help"], env={"COLUMNS": "80"})
    assert shown.exit_code == 0
    for row in command_line.ROWS:
        (line,) = [line for line in shown.output.splitlines() if line.split()[:1] == [row.__name__]]
        assert line.endswith(".")
        assert not line.endswith("...")
        assert "--json" in CliRunner().invoke(command_line.app, [row.__name__, "--help"]).output
    assert "[default: 42M]" in " ".join(CliRunner().invoke(command_line.app, ["ratio", "-h"]).output.split())


def test_a_plan_with_other_shards_than_expected_is_an_error_that_says_how_many() -> None:
    scale.require_pending({"pending_shards": 1000}, expected=1000)
    with pytest.raises(SystemExit, match="999 shards to do, not 1,000"):
        scale.require_pending({"pending_shards": 999}, expected=1000)


def write_vectors(folder: Path, documents: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array([1.0, 0.0] * documents), 2)
    pq.write_table(pa.table({"id": list(map(str, range(documents))), "embedding": vectors}), folder / "a.parquet")


@pytest.fixture
def beside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Work:
    """A job that makes 30, 10, 20 documents/s, and peers whose commands say the seconds that they take."""
    rates = iter([30.0, 10.0, 20.0])

    def run_command(command: list[str], env: Mapping[str, str]) -> CommandRun:
        documents, wall = int(command[-2]), float(command[-1])
        write_vectors(tmp_path / "out" / "peer", documents)
        return CommandRun(json.dumps({"documents": documents, "seconds": wall - 10}), 7, 0, 0, wall)

    def run_job(work: Work) -> peers.Result:
        write_vectors(tmp_path / "out-job" / "data", work.documents)
        return peers.Result(next(rates), wall=40.0, memory=14)

    monkeypatch.setattr(peers, "run_command", run_command)
    monkeypatch.setattr(peers, "run_job", run_job)
    monkeypatch.setattr(peers, "WORK", tmp_path)
    monkeypatch.setattr(peer_variants, "WORK", tmp_path)
    return Work("42M", 900, "float32")


def test_the_best_of_a_peers_runs_is_beside_the_median_of_the_jobs(beside: Work) -> None:
    found = peers.compare_with(beside, [Variant("slow", "float32", ["900", "190"]), Variant("fast", "float32", ["900", "100"])])
    assert (found["setting"], found["documents_per_s"], found["rate_over"]) == ("fast", 10.0, 2.0)
    assert (found["wall_over"], found["memory_over"], found["worst_cosine"]) == (2.5, 0.5, 1.0)
    assert found["job_documents_per_s"] == [30.0, 10.0, 20.0]


def test_a_peer_without_a_clock_has_the_rate_of_what_more_documents_take(beside: Work) -> None:
    variant = Variant("batches of 1", "float32", ["900", "50"], fewer=["300", "30"])  # 10 s of start, 10 s a third
    assert peers.compare_with(beside, [variant])["documents_per_s"] == 30.0


def test_a_peer_that_lost_documents_is_compared_with_nothing(beside: Work) -> None:
    with pytest.raises(RuntimeError, match="embedded 300 of 900 documents"):
        peers.compare_with(beside, [Variant("", "float32", ["300", "20"])])


def test_two_nights_differ_alike_for_the_job_and_for_duckdb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(difference, "WORK", tmp_path)
    monkeypatch.setattr(difference, "ROWS_PER_OBJECT", 600)
    folder = difference.two_nights(4000)
    assert len(list((folder / "old").iterdir())) == 4
    ours, peer = (engine(folder) for engine in difference.ENGINES.values())
    assert 20 < peer["gone"] < peer["came"]
    assert ours == {"partitions": 1, **peer}
