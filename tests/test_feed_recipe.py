"""The LanceDB table of docs/feed.md, run as it is written: it follows a dataset through five nights."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest

from tests.support.datasets import Nights, Row, vector_of
from tests.support.processes import ROOT
from tests.test_docs import blocks

QUERIES = [vector_of(f"query {number}") for number in range(5)]


@pytest.fixture
def recipe() -> dict[str, Any]:
    (code,) = [block.text for block in blocks(ROOT / "docs" / "feed.md") if block.language == "python"]
    names: dict[str, Any] = {}
    exec(code, names)
    return names


def edited(rows: list[Row], night: int, choice: random.Random) -> list[Row]:
    """The rows of the next night, shuffled: some have another text or language, some are gone, some are new."""
    kept = [row for row in rows if choice.random() > 0.1]
    changed = [row._replace(text=f"{row.text} of night {night}") if choice.random() < 0.2 else row for row in kept]
    changed = [row._replace(lang=f"{night}") if choice.random() < 0.1 else row for row in changed]
    changed += [Row(f"it's {night}-{number}", f"text {night} {number}") for number in range(5)]
    return choice.sample(changed, len(changed))


def nearest(rows: list[Row], query: np.ndarray[Any, np.dtype[np.float32]]) -> list[str]:
    vectors = np.array([vector_of(row.text) for row in rows]).astype(np.float16).astype(np.float32)
    return [rows[index].id for index in np.argsort(((vectors - query) ** 2).sum(axis=1))[:5]]


def test_a_lancedb_table_follows_the_dataset_through_five_nights(tmp_path: Path, recipe: dict[str, Any]) -> None:
    database, line, choice = lancedb.connect(tmp_path / "lance"), Nights(tmp_path / "out"), random.Random(0)
    rows = [Row(f"{number}", f"text {number}") for number in range(60)]
    for night in range(1, 6):
        line.publish({f"{night}-{part}": rows[part::3] for part in range(3)})
        if night == 3:  # killed between upserts and deletes; a further night comes before the next try
            recipe["delete"], delete = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt), recipe["delete"]
            with pytest.raises(KeyboardInterrupt):
                recipe["follow"](str(line.output), database)
            recipe["delete"] = delete
        else:
            while recipe["follow"](str(line.output), database) < night:
                pass
            table = database["documents"]
            assert sorted((row["id"], row["lang"]) for row in table.to_arrow().to_pylist()) == sorted((row.id, row.lang) for row in rows)
            for query in QUERIES:
                found = table.search(query).limit(5).to_list()
                assert [row["id"] for row in found] == nearest(rows, query)
        rows = edited(rows, night, choice)
    assert recipe["read_mark"](database) == (5, None)


def test_the_table_refuses_repeated_ids(tmp_path: Path, recipe: dict[str, Any]) -> None:
    line = Nights(tmp_path / "out")
    line.publish({"a": [Row("a", "one"), Row("a", "two")]})
    with pytest.raises(RuntimeError, match="ids repeat"):
        recipe["follow"](str(line.output), lancedb.connect(tmp_path / "lance"))
