"""Which objects of a source are read, and as what: by name, by first bytes, or as the key `format` says."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from backports import zstd

from bulkembed.errors import HeldBack, ObjectError, SourceError
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_listing, source_objects
from bulkembed.source.places import listing_of
from bulkembed.source.scan import scan_object
from tests.support.commands import in_process
from tests.support.listing import left_out
from tests.support.models import recipe
from tests.support.reading import STORE, config
from tests.support.runs import in_one_process, problems, read_dataset, simulated

ROW = b'{"id": 1, "text": "a b"}\n'
TABLE = pa.table({"id": ["1"], "text": ["a b"]})
SCHEMA = pa.schema([pa.field("id", pa.string(), nullable=False)])


def line(number: int) -> bytes:
    return json.dumps({"id": number, "text": f"doc {number}"}).encode() + b"\n"


def packed_rows(pack: Any) -> Any:
    return lambda path: path.write_bytes(pack(ROW))


def parquet(path: Path, **options: Any) -> None:
    pq.write_table(TABLE, path, **options)


def stream(path: Path) -> None:
    with pa.ipc.new_stream(path, TABLE.schema) as writer:
        writer.write_table(TABLE)


# What a corpus or an export is called, and how its own tool writes it.
CORPORA: dict[str, tuple[str, Any]] = {
    "C4": ("en/c4-train.00000-of-01024.json.gz", packed_rows(gzip.compress)),
    "Dolma": ("documents/cc_en_head-0000.json.gz", packed_rows(gzip.compress)),
    "SlimPajama": ("train/chunk1/example_train_0.jsonl.zst", packed_rows(zstd.compress)),
    "The Pile": ("00.jsonl.zst", packed_rows(zstd.compress)),
    "FineWeb": ("data/CC-MAIN-2024-10/000_00000.parquet", parquet),
    "Hugging Face on disk": ("data-00000-of-00001.arrow", stream),
    "Spark Parquet": ("part-00000-f00d-c000.snappy.parquet", lambda path: parquet(path, compression="snappy")),
    "Spark JSON": ("part-00000-f00d-c000.json.gz", packed_rows(gzip.compress)),
    "pandas": ("table.parquet.gzip", lambda path: parquet(path, compression="gzip")),
    "Hive": ("dt=2026-11-26/000000_0", parquet),
    "Athena": ("20261126_010203_00001_abcde_f00d", parquet),
    "BigQuery": ("000000000000.json.gz", packed_rows(gzip.compress)),
    "Redshift": ("0000_part_00.parquet", parquet),
    "Snowflake": ("data_0_1_0.snappy.parquet", lambda path: parquet(path, compression="snappy")),
    "Polars": ("frame.ndjson", lambda path: pl.DataFrame({"id": ["1"], "text": ["a b"]}).write_ndjson(path)),
    "Arrow without a name": ("0000_part_00", lambda path: pl.DataFrame({"id": ["1"], "text": ["a b"]}).write_ipc(path)),
}


@pytest.mark.parametrize("corpus", CORPORA)
def test_what_corpora_and_exports_are_called_is_read(tmp_path: Path, corpus: str) -> None:
    name, write = CORPORA[corpus]
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    write(tmp_path / name)
    (tmp_path / "_SUCCESS").touch()
    (item,) = source_objects(STORE, str(tmp_path))
    assert layout_of(STORE, item).rows == 1


def test_files_with_other_suffixes_are_read_or_named(tmp_path: Path, qwen: str) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    contents = {"a.jsonl": line(1), "b.json": line(2), "c.json.gz": gzip.compress(line(3)), "d.csv": b"id,text\n4,doc 4\n"}
    for name, data in (contents | {"000000_0": line(5), "e.bak": line(6)}).items():
        (folder / name).write_bytes(data)
    cfg = simulated(folder, tmp_path / "out", qwen, keep_columns=[], column_types={"id": "string"})
    summary = in_one_process(cfg)
    assert summary.snapshot is not None
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == ["1", "2", "3", "4"]
    assert {group["reason"]: group["examples"] for group in summary.snapshot.left_out} == {
        "with the suffix .bak": ["e.bak"],
        "without a suffix": ["000000_0"],
    }
    everything = cfg.model_copy(update={"format": "jsonl", "exclude": ("*.csv",)})
    with pytest.raises(HeldBack, match="is read as another format"):
        in_one_process(everything.model_copy(update={"max_deletes": 0.0, "exclude": ("*.csv", "a.jsonl", "b.json")}))
    again = in_one_process(everything)
    assert sorted(read_dataset(tmp_path / "out")["id"].to_pylist()) == ["1", "2", "3", "5", "6"]
    assert again.snapshot is not None and again.snapshot.format == "jsonl"
    assert problems(tmp_path / "out") == []


def test_what_nothing_tells_is_left_out_and_never_guessed(tmp_path: Path) -> None:
    for name, data in {"000000_0": ROW, "part.1": b"PAR1", "list": b"", "manifest": b"\x1f\x8b\x08", "a.jsonl": ROW}.items():
        (tmp_path / name).write_bytes(data)
    found = source_listing(STORE, str(tmp_path))
    assert [item.relative_path for item in found.objects] == ["a.jsonl"]
    assert left_out(found) == {"without a suffix": (4, ("000000_0", "list", "manifest"))}
    (tmp_path / "a.jsonl").unlink()
    with pytest.raises(SourceError, match=r"or other names with --format; left out 4 without a suffix"):
        source_listing(STORE, str(tmp_path))


def foreign_files() -> dict[str, bytes]:
    """Files that are no lines of text, by what they are called in a message."""
    tables, frames, archive = io.BytesIO(), io.BytesIO(), io.BytesIO()
    pq.write_table(TABLE, tables)
    with pa.ipc.new_file(frames, TABLE.schema) as writer:
        writer.write_table(TABLE)
    with tarfile.open(fileobj=archive, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("a.jsonl"), io.BytesIO())
    return {
        "is Parquet": tables.getvalue(),
        "is an Arrow file": frames.getvalue(),
        "is a tar archive": archive.getvalue(),
        "is compressed twice": gzip.compress(gzip.compress(ROW)),
    }


@pytest.mark.parametrize("name", ["b.jsonl", "b.csv", "b.tsv", "b.json.gz"])
@pytest.mark.parametrize("kind", foreign_files())
def test_a_file_that_is_no_text_fails_and_has_neither_rejects_nor_no_rows(tmp_path: Path, name: str, kind: str) -> None:
    data = foreign_files()[kind]
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") and "twice" not in kind else data)
    (item,) = source_objects(STORE, str(tmp_path))
    with pytest.raises(ObjectError, match=rf"{name}: {kind}, as its first bytes show"):
        layout_of(STORE, item)
    with pytest.raises(ObjectError, match=kind):
        scan_object(STORE, item, recipe(config()), SCHEMA)


def test_a_header_may_begin_as_a_binary_file_does(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"PAR1,id,text\n1,2,x\n")
    (item,) = source_objects(STORE, str(tmp_path))
    assert layout_of(STORE, item).rows == 1


@pytest.mark.parametrize(
    ("name", "kind", "advice"),
    [
        ("a.parquet", "is compressed twice", r"is compressed with gzip, as its first bytes show; give it the second suffix \.gz"),
        ("a.parquet", "is an Arrow file", r"is an Arrow file, as its first bytes show; give it the suffix \.arrow"),
        ("a.arrow", "is Parquet", r"is Parquet, as its first bytes show; give it the suffix \.parquet"),
    ],
)
def test_a_table_under_another_name_is_told(tmp_path: Path, name: str, kind: str, advice: str) -> None:
    (tmp_path / name).write_bytes(foreign_files()[kind])
    (item,) = source_objects(STORE, str(tmp_path))
    with pytest.raises(ObjectError, match=advice):
        layout_of(STORE, item)


def test_each_text_file_is_a_document(tmp_path: Path, qwen: str) -> None:
    folder = tmp_path / "in"
    (folder / "deep").mkdir(parents=True)
    contents = {"a.txt": "first\ntext\n", "deep/b.md": "# ünï", "LICENSE": "\ufeffmarked", "empty.txt": "", "c.txt.gz": "packed"}
    for name, text in contents.items():
        data = text.encode()
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n")
    cfg = simulated(folder, tmp_path / "out", qwen, keep_columns=[], format="text")
    in_one_process(cfg).require_complete()
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == ["LICENSE", "a.txt", "c.txt.gz", "deep/b.md"]
    rejects = pa.concat_tables([pq.read_table(path) for path in (tmp_path / "out" / "_meta" / "rejects").rglob("*.parquet")])
    assert sorted(zip(rejects["id"].to_pylist(), rejects["reason"].to_pylist(), strict=True)) == [
        ("empty.txt", "empty_text"),
        ("picture.png", "undecodable"),
    ]
    assert problems(tmp_path / "out") == []


def test_the_format_is_part_of_what_an_object_is(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(ROW)
    by_name, as_lines, as_text = (listing_of(STORE, [str(tmp_path)], asked=asked).objects[0] for asked in (None, "jsonl", "text"))
    assert by_name.id == as_lines.id != as_text.id


def test_a_format_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="Input should be 'parquet', 'jsonl', 'csv', 'tsv', 'arrow' or 'text'"):
        config(format="xml")


def test_the_option_answers_in_one_line(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "000000_0").write_bytes(ROW)
    given = ["--source", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--model", qwen, "--set", "engine.kind=simulated"]
    assert "format: " in in_process("plan", *given, "--format", "xml").stderr
    assert "1 object," in in_process("plan", *given, "--format", "jsonl").stdout
