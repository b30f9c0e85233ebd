"""Arrow IPC files and streams, and Parquet under the names of compressed files, as their tools write them."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.feather
import pyarrow.parquet as pq
import pytest
from backports import zstd

from bulkembed.errors import SourceError
from bulkembed.formats import rows as rows_module
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_objects
from bulkembed.source.scan import scan_object
from tests.support.models import recipe
from tests.support.reading import STORE, carried_of, config, read, read_settled

TABLE = pa.table({"unused": [1.5] * 30, "id": range(30), "text": [f"text {number}" for number in range(30)], "lang": ["de", "en"] * 15})
FRAME = pl.DataFrame(TABLE.to_pydict()).with_columns(pl.col("lang").cast(pl.Categorical))


def ipc_file(path: Path, table: pa.Table = TABLE) -> None:
    with pa.ipc.new_file(path, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=7):
            writer.write(batch)


def ipc_stream(path: Path, table: pa.Table = TABLE) -> None:
    """As Hugging Face datasets lie on disk."""
    with pa.ipc.new_stream(path, table.schema) as writer:
        for batch in table.to_batches(max_chunksize=7):
            writer.write(batch)


def with_dictionary(path: Path) -> None:
    encoded = TABLE.set_column(3, "lang", TABLE["lang"].dictionary_encode())
    ipc_stream(path, encoded)


def feather(path: Path) -> None:
    pa.feather.write_feather(TABLE, path, compression="zstd", chunksize=8)


def compressed(write: Callable[[Path], None], compress: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def write_compressed(path: Path) -> None:
        write(path)
        path.write_bytes(compress(path.read_bytes()))

    return write_compressed


WRITERS: dict[str, tuple[str, Callable[[Path], None]]] = {
    "file": ("a.arrow", ipc_file),
    "stream": ("data-00000-of-00001.arrow", ipc_stream),
    "stream with dictionaries": ("a.arrow", with_dictionary),
    "feather": ("a.feather", feather),
    "polars": ("a.ipc", FRAME.write_ipc),
    "polars stream": ("a.arrows", FRAME.write_ipc_stream),
    "compressed stream": ("a.arrow.zst", compressed(ipc_stream, zstd.compress)),
    "compressed file": ("a.feather.gz", compressed(feather, gzip.compress)),
    "pandas' name of Parquet": ("a.parquet.gzip", lambda path: pq.write_table(TABLE, path, compression="gzip", row_group_size=7)),
    "compressed Parquet": ("a.parquet.gz", compressed(lambda path: pq.write_table(TABLE, path, row_group_size=7), gzip.compress)),
    "Spark": ("part-00000-f00d-c000.snappy.parquet", lambda path: pq.write_table(TABLE, path, compression="snappy")),
    "Polars": ("a.pq", lambda path: FRAME.write_parquet(path, row_group_size=7)),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_what_tools_write_comes_back(tmp_path: Path, writer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, write = WRITERS[writer]
    write(tmp_path / name)
    cfg = config(keep_columns=["lang"])
    for max_rows in (4, 100):
        parts = read(tmp_path, cfg, max_rows)
        assert [row for part in parts for row in part.rows.to_pylist()] == TABLE.select(["id", "lang"]).to_pylist()
        assert [text for part in parts for text in part.texts] == TABLE["text"].to_pylist()
    monkeypatch.setattr(rows_module, "BATCH_ROWS", 5)
    (item,) = source_objects(STORE, str(tmp_path))
    scan = scan_object(STORE, item, recipe(cfg), carried_of([item], cfg))
    assert scan.keys.rows.tolist() == list(range(30))
    assert scan.layout == layout_of(STORE, item, ["text"])


@pytest.mark.parametrize("write", [ipc_file, ipc_stream])
def test_bytes_that_are_no_text_are_single_rejects(tmp_path: Path, write: Callable[[Path, pa.Table], None]) -> None:
    raw = pa.array([b"good", b"bad \xff", None, b"fine"], pa.binary())
    bad = pa.StringArray.from_buffers(4, raw.buffers()[1], raw.buffers()[2], raw.buffers()[0])
    write(tmp_path / "a.arrow", pa.table({"id": range(4), "text": bad}))
    (part,) = read(tmp_path, config())
    assert part.texts == ["good", "fine"]
    assert part.rejects["reason"].to_pylist() == ["undecodable", "null_text"]


@pytest.mark.parametrize("write", [ipc_file, ipc_stream])
@pytest.mark.parametrize("cut", [1, 8, 200, 900])
def test_a_file_that_was_cut_is_an_error(tmp_path: Path, write: Callable[[Path], None], cut: int) -> None:
    write(tmp_path / "a.arrow")
    (tmp_path / "a.arrow").write_bytes((tmp_path / "a.arrow").read_bytes()[:-cut])
    with pytest.raises(SourceError, match=r"a\.arrow: not a readable arrow file"):
        read_settled(tmp_path, config())


def test_a_stream_that_ends_between_two_batches_was_cut(tmp_path: Path) -> None:
    ipc_stream(tmp_path / "a.arrow")
    (item,) = source_objects(STORE, str(tmp_path))
    offsets = layout_of(STORE, item).offsets
    whole = (tmp_path / "a.arrow").read_bytes()
    for changed in (whole[: offsets[2]], whole + b"more"):
        (tmp_path / "a.arrow").write_bytes(changed)
        with pytest.raises(SourceError, match=r"end mark|behind the end"):
            read_settled(tmp_path, config())


def test_buffers_that_do_not_fit_together_are_an_error(tmp_path: Path) -> None:
    ipc_stream(tmp_path / "a.arrow")
    raw = (tmp_path / "a.arrow").read_bytes()
    offsets = TABLE["text"].chunk(0).slice(0, 7).buffers()[1].to_pybytes()[4:16]
    assert offsets in raw
    (tmp_path / "a.arrow").write_bytes(raw.replace(offsets, b"\xff\xff\xff\x7f" + offsets[4:], 1))
    with pytest.raises(SourceError, match="not a readable arrow file: ArrowInvalid: Offset"):
        read_settled(tmp_path, config())


def test_feather_of_version_1_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.feather").write_bytes(b"FEA1" + bytes(100))
    with pytest.raises(SourceError, match="Feather version 1; write it again"):
        read(tmp_path, config())


@pytest.mark.parametrize("write", [ipc_file, ipc_stream])
def test_a_file_without_rows_has_none(tmp_path: Path, write: Callable[[Path, pa.Table], None]) -> None:
    write(tmp_path / "a.arrow", TABLE.slice(0, 0))
    (tmp_path / "b.arrow").touch()
    for item in source_objects(STORE, str(tmp_path)):
        assert layout_of(STORE, item).rows == 0
        carried = pa.schema([pa.field("id", pa.int64(), nullable=False)])
        assert scan_object(STORE, item, recipe(config()), carried).counts.rows == 0


@pytest.mark.parametrize("write", [ipc_file, ipc_stream])
def test_a_field_within_a_column_is_read(tmp_path: Path, write: Callable[[Path, pa.Table], None]) -> None:
    table = pa.table({"doc": [{"key": number, "body": f"text {number}"} for number in range(9)], "other": [0] * 9})
    write(tmp_path / "a.arrow", table)
    parts = read(tmp_path, config(id_column="doc.key", text_columns=["doc.body"]), 4)
    assert [row["id"] for part in parts for row in part.rows.to_pylist()] == list(range(9))
    assert [text for part in parts for text in part.texts] == [f"text {number}" for number in range(9)]
