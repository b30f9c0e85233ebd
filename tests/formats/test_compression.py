"""JSON lines under any compression, by their name or by their first bytes; what is damaged is an error, never an end."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import subprocess
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from backports import zstd
from fsspec.compression import compr

from bulkembed.errors import SourceError
from bulkembed.formats import text_lines
from bulkembed.scans import Layout
from bulkembed.source.layout import layout_of
from bulkembed.source.objects import source_objects
from tests.support.reading import STORE, config, read

ROWS = [{"id": number, "text": f"text {number}"} for number in range(40)]


def lines(rows: list[dict[str, Any]] = ROWS, end: str = "\n") -> bytes:
    return "".join(json.dumps(row) + end for row in rows).encode()


def zipped(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("folder/data.jsonl", data)
        archive.writestr("__MACOSX/data.jsonl", b"x")
    return buffer.getvalue()


def long_window(data: bytes) -> bytes:
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 31, zstd.CompressionParameter.enable_long_distance_matching: 1}
    packer = zstd.ZstdCompressor(options=options)
    return packer.compress(data) + packer.flush()


PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "gzip": gzip.compress,
    "zst": zstd.compress,
    "zstd": long_window,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zip": zipped,
}
MEMBERED = ("gz", "zst", "bz2", "xz")


def ids(path: Path, max_rows: int = 10**6) -> list[int]:
    return [number for part in read(path, config(), max_rows) for number in part.rows["id"].to_pylist()]


def layout(path: Path) -> Layout:
    (item,) = source_objects(STORE, str(path))
    return layout_of(STORE, item)


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "PART_ROWS", 7)


@pytest.mark.parametrize("suffix", PACKERS)
@pytest.mark.parametrize("name", ["a.json", "c4-train.00000-of-01024.json", "a.ndjson", "a.jsonlines", "A.JSONL"])
def test_every_name_is_read_with_every_codec(tmp_path: Path, name: str, suffix: str) -> None:
    (tmp_path / f"{name}.{suffix}").write_bytes(PACKERS[suffix](lines()))
    assert ids(tmp_path, 9) == list(range(40))


@pytest.mark.parametrize("suffix", [suffix for suffix in PACKERS if suffix != "lzma"])
@pytest.mark.parametrize("name", ["a.json", "a.jsonl.gz"])
def test_first_bytes_tell_more_than_the_name(tmp_path: Path, name: str, suffix: str) -> None:
    (tmp_path / name).write_bytes(PACKERS[suffix](lines()))
    assert ids(tmp_path, 9) == list(range(40))
    assert bool(layout(tmp_path).offsets) == (name == "a.jsonl.gz" and suffix in ("gz", "gzip")), "else only its start tells the codec"


@pytest.mark.parametrize("suffix", MEMBERED)
def test_members_are_read_one_after_the_other(tmp_path: Path, suffix: str) -> None:
    pack = PACKERS[suffix]
    padding = bytes(512) if suffix != "zst" else b""
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(pack(lines(ROWS[:13])) + pack(b"") + pack(lines(ROWS[13:])) + padding)
    assert ids(tmp_path, 9) == list(range(40))


@pytest.mark.parametrize("command", ["gzip", "bzip2", "xz", "zstd"])
def test_what_the_tool_itself_writes_is_read(tmp_path: Path, command: str) -> None:
    try:
        packed = subprocess.run([command, "-c"], input=lines(), capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip(f"{command} is not installed")
    (tmp_path / "a.json").write_bytes(packed)
    assert ids(tmp_path) == list(range(40))


@pytest.mark.parametrize("suffix", MEMBERED)
@pytest.mark.parametrize("damage", ["cut", "garbage", "second member damaged", "second member cut"])
def test_damage_is_an_error_and_no_end_of_the_file(tmp_path: Path, suffix: str, damage: str) -> None:
    packed = PACKERS[suffix](lines())
    ends = {"cut": packed[:-9], "garbage": packed + b"garbage", "second member damaged": packed + b"?" + packed[1:]}
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(ends.get(damage, packed + packed[:-9]))
    with pytest.raises(SourceError, match=r"a\.jsonl\.\w+: not a readable jsonl file: (?!EOFError).*; copy it again"):
        ids(tmp_path)


@pytest.mark.parametrize("suffix", PACKERS)
def test_an_object_of_no_bytes_has_no_rows(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"a.jsonl.{suffix}").touch()
    assert layout(tmp_path).rows == 0


SNAPPY = b"\xff\x06\x00\x00sNaPpY"


@pytest.mark.parametrize(("name", "head", "remedy"), [("a.jsonl.lz4", b"{", "pip install lz4"), ("a.jsonl", SNAPPY, "use gzip or zstd")])
def test_a_codec_that_is_not_read_is_named(tmp_path: Path, name: str, head: bytes, remedy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(compr, "lz4", raising=False)
    (tmp_path / name).write_bytes(head)
    with pytest.raises(SourceError, match=f"{name}: is compressed with .*{remedy}"):
        layout(tmp_path)


def test_lz4_is_read_and_its_damage_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Lz4File(io.BytesIO):
        """As the package lz4 does, which the tests do without: it raises RuntimeError for damage."""

        def read(self, size: int | None = -1) -> bytes:
            if b"damage" in self.getvalue():
                raise RuntimeError("LZ4F_decompress failed")
            return super().read(size)

    monkeypatch.setitem(compr, "lz4", lambda file, mode: Lz4File(file.read()))
    (tmp_path / "a.jsonl.lz4").write_bytes(lines())
    assert ids(tmp_path, 9) == list(range(40))
    (tmp_path / "a.jsonl.lz4").write_bytes(b"damage")
    with pytest.raises(SourceError, match="not a readable jsonl file: OSError: LZ4F_decompress failed"):
        layout(tmp_path)


def test_an_archive_of_several_files_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.jsonl.zip", "w") as archive:
        for name in ("a.jsonl", "b.jsonl"):
            archive.writestr(name, lines())
    with pytest.raises(SourceError, match="a ZIP archive of 2 files"):
        layout(tmp_path)


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("end", ["\r", "\r\n", "\n\r\n"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_lines_end_as_they_do_anywhere(tmp_path: Path, name: str, end: str, mark: bytes) -> None:
    data = mark + lines(end=end)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert ids(tmp_path, 9) == list(range(40))


def test_long_lines_of_any_end_are_rejected_and_shift_no_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "MAX_LINE_BYTES", 60)
    monkeypatch.setattr(text_lines, "CHUNK_BYTES", 16)
    rows = [{"id": 0, "text": "a"}, {"id": 1, "text": "long" * 50}, {"id": 2, "text": "b"}, {"id": 3, "text": "long" * 50}]
    (tmp_path / "a.jsonl").write_bytes(lines(rows, "\r").removesuffix(b"\r"))
    (found,) = read(tmp_path, config())
    assert found.rows["id"].to_pylist() == [0, 2]
    assert found.rejects.select(["row", "reason"]).to_pylist() == [{"row": row, "reason": "line_too_long"} for row in (1, 3)]


def test_utf_16_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines().decode().encode("utf-16"))
    with pytest.raises(SourceError, match=r"a\.jsonl: is UTF-16; convert it"):
        layout(tmp_path)


@pytest.mark.parametrize("text", ['[{"id": 1, "text": "a"},\n{"id": 2, "text": "b"}]', '[{"id": 1, "text": "a"}]'])
def test_a_json_array_is_refused_with_what_to_do(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(text.encode()))
    with pytest.raises(SourceError, match=r"is one JSON array, not JSON lines; write one object a line, as jq -c '\.\[\]' does"):
        layout(tmp_path)
