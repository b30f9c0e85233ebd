"""What current.txt holds, where it lies, and which outputs it could not name."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.dataset
import pytest

from bulkembed.cli.app import app
from bulkembed.config.toml_files import load
from bulkembed.dataset.snapshots import newest_dataset
from bulkembed.errors import ConfigError, HeldBack
from bulkembed.inspection.verify import PUBLISHING_SECONDS, verify
from bulkembed.report.run_text import summary_text
from bulkembed.runs.lookup import open_job
from bulkembed.runs.run import finish, run
from bulkembed.storage.store import Store
from tests.support.corpora import write_jsonl, write_small_corpus
from tests.support.runs import Recorder, in_one_process, simulated


@pytest.mark.parametrize("name", ["out", "out 1", "ünï [bold]x[/] :cat: a\tb", "x" * 200])
def test_files_prints_what_current_txt_holds(tmp_path: Path, qwen: str, name: str, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    write_small_corpus(tmp_path / "in")
    job, plan = open_job(simulated(tmp_path / "in", tmp_path / name, qwen))
    summary = finish(job, plan, lambda progress: None, Recorder(1000))
    listed = str(tmp_path / name / "current.txt").replace("\t", "\\t")  # a tab may not move what stands after it
    assert f"  files        4, listed in {listed}" in summary_text(job, summary, 1.0)
    capfdbinary.readouterr()
    app(["files", "--output", str(tmp_path / name)], standalone_mode=False)
    printed = capfdbinary.readouterr().out
    assert printed == (tmp_path / name / "current.txt").read_bytes()
    assert [Path(line).is_file() for line in printed.decode().splitlines()] == [True] * 4


def test_the_files_hold_the_live_rows_where_the_folder_holds_more(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in", rows=40)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    run(cfg, lambda progress: None, Recorder(6))
    for number in (0, 2):
        path = tmp_path / "in" / f"{number}.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_jsonl(path, [row | {"text": f"changed {row['id']}"} for row in rows[1:]])
    in_one_process(cfg).require_complete()
    files = (tmp_path / "out/current.txt").read_text(encoding="utf-8").splitlines()
    live = [each for each in range(160) if each not in (0, 80)]
    assert pyarrow.dataset.dataset(files).to_table()["id"].to_pylist() == live
    everything = pyarrow.dataset.dataset(tmp_path / "out/data", format="parquet").to_table()["id"].to_pylist()
    assert len(everything) > len(live) == len(set(live))


@pytest.mark.parametrize("spelled", ["out", "out/", "file:out", "local:out", "link/../out"])
def test_current_txt_lies_beside_the_data_and_names_them(
    tmp_path: Path, qwen: str, spelled: str, monkeypatch: pytest.MonkeyPatch, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    """The system follows `link` before it goes up by `..`."""
    write_small_corpus(tmp_path / "in")
    (tmp_path / "far" / "away").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "far" / "away")
    monkeypatch.chdir(tmp_path)
    in_one_process(simulated("in", spelled, qwen))
    (current,) = tmp_path.rglob("current.txt")
    assert (current.parent / "data").is_dir()
    app(["files", "--output", spelled], standalone_mode=False)
    printed = capfdbinary.readouterr().out
    assert printed == current.read_bytes()
    assert [Path(line).is_file() for line in printed.decode().splitlines()] == [True] * 4


def test_a_run_that_is_held_back_still_repairs_current_txt(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    current = tmp_path / "out/current.txt"
    live = current.read_bytes()
    current.write_bytes(b"stale")
    for number in (1, 2, 3):
        (tmp_path / "in" / f"{number}.jsonl").unlink()
    with pytest.raises(HeldBack):
        in_one_process(cfg)
    assert current.read_bytes() == live


def test_verify_names_a_current_txt_that_readers_should_not_trust(tmp_path: Path, qwen: str) -> None:
    write_small_corpus(tmp_path / "in")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    current, store = tmp_path / "out/current.txt", Store()
    live = current.read_bytes()
    for stale in (None, live[:-1], b""):
        current.unlink() if stale is None else current.write_bytes(stale)
        (problem,) = verify(store, *newest_dataset(store, str(tmp_path / "out")))
        assert problem.text == f"{current}: does not list the files of snapshot 1; run the job again, which writes it"
        in_one_process(cfg)
        assert current.read_bytes() == live
        assert not list(verify(store, *newest_dataset(store, str(tmp_path / "out"))))
    before = newest_dataset(store, str(tmp_path / "out"))
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, prompt="x: "))
    assert not list(verify(store, *before)), "a run that ended meanwhile is no problem"


def test_verify_beside_a_run_that_is_about_to_write_current_txt_finds_nothing(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_corpus(tmp_path / "in")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen)).require_complete()
    current = tmp_path / "out" / "current.txt"
    text = current.read_bytes()
    current.write_bytes(text.splitlines(keepends=True)[0])
    waits: list[float] = []

    def write_meanwhile(seconds: float) -> None:
        waits.append(seconds)
        current.write_bytes(text)

    monkeypatch.setattr("bulkembed.inspection.verify.time.sleep", write_meanwhile)
    ledger, snapshot = newest_dataset(Store(), str(tmp_path / "out"))
    assert list(verify(Store(), ledger, snapshot)) == []
    assert waits == [PUBLISHING_SECONDS]


@pytest.mark.parametrize("output", ["a\nb", "a\r", "a\u2028b", "\x0bx"])
def test_an_output_that_current_txt_could_not_name_is_refused(output: str) -> None:
    with pytest.raises(ConfigError, match="output: must not hold a line break"):
        load(None, {"source": "in", "output": output, "model": "m"})


@pytest.mark.parametrize("output", ["s3://bucket//out", "s3://bucket/out//", "gs:////out"])
def test_an_output_that_a_store_reads_in_two_ways_is_refused(output: str) -> None:
    with pytest.raises(ConfigError, match="output: must not hold // after its scheme"):
        load(None, {"source": "in", "output": output, "model": "m"})
