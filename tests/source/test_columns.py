"""What a fresh plan reads of a source, counted at the store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from bulkembed.formats import text_lines
from bulkembed.formats.text_lines import read_lines
from bulkembed.source import json_columns
from bulkembed.source.json_columns import SAMPLE_LINES
from bulkembed.source.objects import source_objects
from bulkembed.storage.store import Store

SPARSE = [{"id": number, "text": "some text", **({"lang": "en"} if number == 2900 else {})} for number in range(3000)]


@pytest.mark.parametrize("rows", [0, 1, SAMPLE_LINES, SAMPLE_LINES + 100])
def test_an_object_is_read_no_further_than_its_sample(tmp_path: Path, rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def noted(file: BinaryIO) -> Iterator[tuple[bytes, int]]:
        for line, length in read_lines(file):
            read.append(line)
            yield line, length

    monkeypatch.setattr(text_lines, "read_lines", noted)
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"id": 1}\n\n' * rows)
    (item,) = source_objects(Store(), str(path))
    found = json_columns.columns_of(Store(), item, ["id"])
    assert found.has_rows == (rows > 0)
    assert sum(not line.isspace() for line in read) <= min(rows, SAMPLE_LINES + 1), "one more, to see that there is one"
