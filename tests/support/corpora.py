"""Source objects with documents."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

WORDS = [
    "shard",
    "vector",
    "token",
    "receipt",
    "snapshot",
    "bucket",
    "actor",
    "corpus",
    "row",
    "group",
    "検索",
    "поиск",
    "émigré",
    "naïve",
    "🧮",
]


def documents(count: int) -> list[dict[str, Any]]:
    """Documents of varied length with integer ids. No two have the same text."""
    return [
        {
            "id": 1000 + number,
            "text": " ".join([*(WORDS[(number * 7 + word) % len(WORDS)] for word in range(number * 13 % 90)), f"{number}"]),
            "lang": "xx",
        }
        for number in range(count)
    ]


def write_corpus(folder: Path, files: int = 4, rows: int = 50) -> list[dict[str, Any]]:
    """Alternately Parquet (several row groups) and JSONL; returns the rows in source order."""
    folder.mkdir(parents=True, exist_ok=True)
    everything = documents(files * rows)
    for number in range(files):
        part = everything[number * rows : (number + 1) * rows]
        if number % 2 == 0:
            pq.write_table(pa.Table.from_pylist(part), folder / f"part-{number}.parquet", row_group_size=20)
        else:
            write_jsonl(folder / f"part-{number}.jsonl", part)
    return everything


def write_slow_corpus(folder: Path) -> list[dict[str, Any]]:
    """Three shards of a few tokens, and nine of 1,280: a run that is disturbed after the first ones has seconds of work left."""
    rows = [{"id": n, "text": f"{n} " + "word " * (60 if n >= 60 else 0), "lang": "xx"} for n in range(240)]
    folder.mkdir(parents=True)
    write_jsonl(folder / "a.jsonl", rows)
    return rows


def write_jsonl(path: Path, rows: list[Any]) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def write_small_corpus(folder: Path, files: int = 4, rows: int = 5) -> None:
    """JSON lines of documents with ids from 0 on, in files of a few rows."""
    folder.mkdir(exist_ok=True)
    for number in range(files):
        part = [{"id": rows * number + row, "text": f"doc {rows * number + row}", "lang": "xx"} for row in range(rows)]
        write_jsonl(folder / f"{number}.jsonl", part)
