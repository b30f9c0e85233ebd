"""What a source's listing finds, what it leaves out and says so, and what it refuses."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from backports import zstd

from bulkembed.errors import ConfigError, SourceError, StorageError
from bulkembed.report import run_text
from bulkembed.runs.lookup import open_job
from bulkembed.runs.overlap import refuse_overlap
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_listing
from bulkembed.storage.store import Store
from tests.support.listing import ROW, deny, fill, left_out, paths
from tests.support.runs import in_one_process, read_dataset, simulated


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path, "a.jsonl", "secret/b.jsonl")
    deny(monkeypatch, "secret")
    for source in (str(tmp_path), f"{tmp_path}/*/*.jsonl", f"{tmp_path}/**"):
        with pytest.raises(StorageError, match=rf"{tmp_path}/secret: cannot be listed") as caught:
            source_listing(Store(), source)
        assert "\n" not in str(caught.value)


def test_a_name_without_a_suffix_whose_first_bytes_cannot_be_read_is_one_failed_object(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path, "a.jsonl", "000000_0", "000001_0")
    read_start = Store.read_start

    def refusing(store: Store, uri: str, max_bytes: int) -> bytes:
        if uri.endswith("000000_0"):
            raise StorageError(f"reading {uri}: access is denied")
        return read_start(store, uri, max_bytes)

    monkeypatch.setattr(Store, "read_start", refusing)
    found = source_listing(Store(), str(tmp_path))
    assert paths(found) == ["a.jsonl"]
    assert [failure.where for failure in found.failures] == [f"{tmp_path}/000000_0"]
    assert "access is denied" in found.failures[0].reason
    assert left_out(found) == {"without a suffix": (1, ("000001_0",))}


def test_other_suffixes_and_hidden_names_are_counted_and_named(place: tuple[Store, str]) -> None:
    store, root = place
    names = ["a.jsonl", "1.pdf", "2.pdf", "3.pdf", "4.PDF", "x/data.pdf.gz", "x/000000_0", "_SUCCESS", "_old/b.jsonl", "_old/c.jsonl"]
    fill(root, *names, store=store)
    found = source_listing(store, root)
    assert paths(found) == ["a.jsonl"]
    assert left_out(found) == {
        "with the suffix .pdf": (4, ("1.pdf", "2.pdf", "3.pdf")),
        "with the suffix .pdf.gz": (1, ("x/data.pdf.gz",)),
        "without a suffix": (1, ("x/000000_0",)),
        "hidden by a leading dot or underscore": (2, ("_SUCCESS", "_old/")),
    }


def test_plan_and_summary_show_what_is_left_out(tmp_path: Path, qwen: str) -> None:
    fill(tmp_path / "in", "a.jsonl", "b.pdf", "c.pdf", "d.pdf", "e.pdf", "_SUCCESS")
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[])
    for _ in ("a first run", "one with nothing to do"):
        job, plan = open_job(cfg)
        for text in (run_text.plan_text(job, plan), run_text.summary_text(job, in_one_process(cfg), 1.0)):
            assert "left out     4 with the suffix .pdf: b.pdf, c.pdf, d.pdf, ...\n" in text
            assert "left out     1 hidden by a leading dot or underscore: _SUCCESS\n" in text


def test_many_suffixes_do_not_flood_the_report(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", *(f"{number}.x{number}" for number in range(50)), *(f"log.{number}" for number in range(50)))
    found = source_listing(Store(), str(tmp_path))
    assert len(found.left_out) <= 6
    assert sum(each.count for each in found.left_out) == 100


@pytest.mark.parametrize("source", ["{}/in/_part.jsonl", "{}/in/_*.jsonl", "{}/in/.old", "{}/in/.old/*.jsonl"])
def test_a_hidden_name_that_is_asked_for_is_read(place: tuple[Store, str], source: str) -> None:
    store, root = place
    fill(root, "in/_part.jsonl", "in/.old/a.jsonl", "in/b.jsonl", store=store)
    assert len(source_listing(store, source.format(root)).objects) == 1


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("c [v2]/in", ["a.jsonl", "b 1.jsonl", "b [1].jsonl", "what?.jsonl"]),
        ("c [v2]/in/b [1].jsonl", ["b [1].jsonl"]),
        ("c [v2]/in/what?.jsonl", ["what?.jsonl"]),
        ("c [v2]/in/*.jsonl", ["a.jsonl", "b 1.jsonl", "b [1].jsonl", "what?.jsonl"]),
        ("c [v2]/in/b [1]*", ["b 1.jsonl"]),
        ("c [v2]/*/a.jsonl", ["in/a.jsonl"]),
        ("**/a.jsonl", ["c 2/a.jsonl", "c [v2]/in/a.jsonl"]),
        ("c [0-9]/*", ["c 2/a.jsonl"]),
    ],
)
def test_a_path_that_exists_as_it_is_spelled_is_that_path(place: tuple[Store, str], source: str, expected: list[str]) -> None:
    store, root = place
    fill(root, *(f"c [v2]/in/{name}" for name in ("a.jsonl", "b [1].jsonl", "b 1.jsonl", "what?.jsonl")), "c 2/a.jsonl", store=store)
    assert paths(source_listing(store, f"{root}/{source}")) == expected


def test_a_place_with_brackets_overlaps_what_it_holds_alone(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "c [v2]/in/a.jsonl", store=store)
    refuse_overlap(store, f"{root}/c [v2]/in", f"{root}/out")
    refuse_overlap(store, f"{root}/c [v2]/in", f"{root}/c [v2]/out")
    refuse_overlap(store, f"{root}/in", f"{root}/[in]")
    for output in ("c [v2]/in", "c [v2]/in/[out]"):
        with pytest.raises(ConfigError, match="inside one another"):
            refuse_overlap(store, f"{root}/c [v2]/in", f"{root}/{output}")
    with pytest.raises(ConfigError, match="inside one another"):
        refuse_overlap(store, f"{root}/*/a.jsonl", f"{root}/out")


def test_an_output_with_brackets_is_written_and_read(tmp_path: Path, qwen: str) -> None:
    fill(tmp_path / "in", "a.jsonl")
    in_one_process(simulated(tmp_path / "in", tmp_path / "out [v2]*", qwen, keep_columns=[])).require_complete()
    assert read_dataset(tmp_path / "out [v2]*")["id"].to_pylist() == [1]


@pytest.mark.parametrize(
    ("source", "output"),
    [
        ("s3a://b/x", "s3://b/x/y"),
        ("gs://b/x", "gcs://b/x"),
        ("az://c/x", "abfs://c@account.dfs.core.windows.net/x/y"),
        ("file:///a/b", "/a/b/c"),
        ("local:///a/b", "file:///a/b"),
        ("/", "/a"),
        ("~/x", str(Path.home() / "x" / "out")),
    ],
)
def test_another_spelling_of_a_place_is_that_place(source: str, output: str) -> None:
    with pytest.raises(ConfigError, match="inside one another"):
        refuse_overlap(Store(), source, output)


def test_a_folder_that_a_glob_matches_is_named(place: tuple[Store, str]) -> None:
    store, root = place
    fill(root, "a.jsonl", "dt=1/b.jsonl", store=store)
    found = source_listing(store, f"{root}/*")
    assert paths(found) == ["a.jsonl"]
    assert left_out(found) == {"folder that the pattern matches (add /** for what is in it)": (1, ("dt=1/",))}


@pytest.mark.parametrize("suffix", [".json", ".json.gz", ".json.zst", ".ndjson.gz", ".ndjson.zst", ".jsonl", ".JSONL.GZ", ".Json.Zst"])
def test_json_lines_by_any_of_their_names(tmp_path: Path, suffix: str) -> None:
    data = ROW * 3
    if suffix.lower().endswith(".gz"):
        data = gzip.compress(data)
    elif suffix.lower().endswith(".zst"):
        data = zstd.compress(data)
    fill(tmp_path, f"c4-train.00000-of-01024{suffix}", data=data)
    (item,) = source_listing(Store(), str(tmp_path)).objects
    assert layout_of(Store(), item).rows == 3


def test_zstd_with_a_long_window_is_read(tmp_path: Path) -> None:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.enable_long_distance_matching: 1}
    packer = zstd.ZstdCompressor(options=options)
    fill(tmp_path, "a.jsonl.zst", data=packer.compress(ROW) + packer.flush())
    (item,) = source_listing(Store(), str(tmp_path)).objects
    assert layout_of(Store(), item).rows == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"id": 1, "text": "x"}]'),
        ("a.json", '\ufeff \n[\n{"id": 1, "text": "x"},\n{"id": 2, "text": "y"}\n]\n'),
        ("a.json", '{\r\n  "id": 1,\r\n  "text": "x"\r\n}\r\n'),
        ("a.jsonl", '[\n{"id": 1, "text": "x"}\n]\n'),
        ("a.jsonl", '[{"id": 1, "text": "x"},\n{"id": 2, "text": "y"}]\n'),
    ],
)
def test_one_json_document_is_not_taken_for_lines(tmp_path: Path, qwen: str, name: str, text: str) -> None:
    fill(tmp_path / "in", name, data=text.encode())
    fill(tmp_path / "in", "b.jsonl")
    _, plan = open_job(simulated(tmp_path / "in", tmp_path / "out", qwen, keep_columns=[]))
    assert [Path(failure.where).name for failure in plan.failures] == [name]
    assert "not JSON lines" in plan.failures[0].reason
    assert plan.rows_pending == 1


def test_a_bad_first_row_of_json_lines_stays_a_row(tmp_path: Path) -> None:
    fill(tmp_path, "a.jsonl", data=b"[1, 2]\n" + ROW)
    (item,) = source_listing(Store(), str(tmp_path)).objects
    assert layout_of(Store(), item).rows == 2


@pytest.mark.parametrize("pattern", ["a**b", "**c/x"])
def test_a_pattern_that_is_none_is_told_in_one_line(tmp_path: Path, pattern: str) -> None:
    fill(tmp_path, "a.jsonl")
    with pytest.raises(SourceError, match="Invalid pattern"):
        source_listing(Store(), f"{tmp_path}/{pattern}")
