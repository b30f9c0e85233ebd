"""Write docs/sources.md: what a run makes of the files that people have. Each row is built as its tool builds it, and run.

python -m scripts.samples.sources MODEL"""

from __future__ import annotations

import json
import math
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from bulkembed.config.run_config import RunConfig
from bulkembed.dataset.snapshots import newest_dataset, snapshot_files
from bulkembed.embedding.simulated import SimulatedEmbedder
from bulkembed.errors import BulkembedError
from bulkembed.runs.executor import LocalExecutor
from bulkembed.runs.run import Summary, run
from bulkembed.storage.store import Store
from scripts.samples.catalogue import EXPORTS, Export
from scripts.samples.column_values import JSON, PARQUET, JsonColumn, ParquetColumn

PAGE = Path(__file__).resolve().parents[2] / "docs" / "sources.md"
UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
INTRODUCTION = """# Corpora, exports and column types

<!-- scripts/samples/sources.py writes this page by building and running each row: change the samples, not the page. -->

Each row was built as its tool builds it, and embedded. An outcome of rows means that exactly these ids and kept values came out, each once.
[input.md](input.md) has the rules.
"""


@dataclass(frozen=True)
class Outcome:
    """What came of a run."""

    rows: pa.Table | None  # id and kept columns; None where it was refused
    rejects: int
    line: str  # the error, or what was left out


def outcome(folder: Path, model: str, keys: Mapping[str, Any]) -> Outcome:
    """Runs over `folder`/in, without Ray, on a simulated engine."""
    source = keys.get("source", "")
    places: dict[str, Any] = {"source": str(folder / "in" / source), "output": str(folder / "out"), "model": model}
    engine = {"max_tokens": 64, "engine": {"kind": "simulated", "tokens_per_second": 1e9}}
    try:
        cfg = RunConfig.model_validate(dict(keys) | places | engine)
        summary = run(cfg, lambda progress: None, LocalExecutor(SimulatedEmbedder(64, 1e9)))
        summary.require_complete()
    except BulkembedError as error:
        return Outcome(None, 0, str(error).replace(f"{folder}/", ""))
    return Outcome(read_rows(cfg), rejects_of(summary), "; ".join(map(str, summary.plan.left_out)))


def rejects_of(summary: Summary) -> int:
    return summary.snapshot.rejects if summary.snapshot else 0


def read_rows(cfg: RunConfig) -> pa.Table:
    store = Store()
    ledger, snapshot = newest_dataset(store, cfg.output)
    names = ["id", *cfg.keep_columns]
    files = (pa.BufferReader(store.read(ledger.data_uri(name))) for name in snapshot_files(store, cfg.output, snapshot))
    return pa.concat_tables([pq.ParquetFile(file).read(columns=names) for file in files]).replace_schema_metadata(None)


def export_cells(model: str, export: Export) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        export.build(Path(folder, "in"))
        found = outcome(Path(folder), model, export.keys)
    if export.rows is None or found.rows is None:
        require(found.rows is None and export.rows is None, export.what, found.line or "it was read")
        text = f"refused: {found.line}"
    else:
        wanted, came = (sorted(map(repr, rows)) for rows in (export.rows, [spelled(row) for row in found.rows.to_pylist()]))
        require((wanted, export.rejects) == (came, found.rejects), export.what, f"{came}, {found.rejects} rejects; not {wanted}")
        text = ", ".join(filter(None, [f"{len(came)} rows", f"{found.rejects} rejects" * bool(found.rejects)]))
        text += f"; left out: {UUID.sub('…', found.line)}" * bool(found.line)
    return [export.what, keys_text(export.keys), text]


def spelled(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value if isinstance(value, int | float | dict | list | None) else str(value) for name, value in row.items()}


def keys_text(keys: Mapping[str, Any]) -> str:
    return "<br>".join(f"`{name} = {json.dumps(value)}`" for name, value in keys.items())


def column_cells(model: str, column: ParquetColumn | JsonColumn) -> list[str]:
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "in")
        source.mkdir()
        wanted = write_parquet(source, column) if isinstance(column, ParquetColumn) else write_json(source, column)
        found = outcome(Path(folder), model, {"keep_columns": ["x"]})
    if found.rows is None:
        return [column.what, f"refused: {found.line}"]
    rows = found.rows.sort_by("id")["x"]
    came, kind = rows.to_pylist(), rows.type
    if all(map(is_same, came, [value for value, _ in wanted])):
        return [column.what, f"`{kind}`"]
    require(came == [text for _, text in wanted], column.what, f"{came} of type {kind}, not {wanted}")
    return [column.what, f"`{kind}`: `{'`, `'.join(filter(None, came))}`"]


def is_same(one: Any, other: Any) -> bool:
    """Whether two values are one. 1 is 1.0, but not True. NaN is NaN. A field that is null is one that is absent."""
    if isinstance(one, dict) and isinstance(other, dict):
        return all(is_same(one.get(name), other.get(name)) for name in one | other)
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


Wanted = list[tuple[Any, str | None]]  # each value, and its text in a column that holds several kinds of values


def write_parquet(source: Path, column: ParquetColumn) -> Wanted:
    """One file for each type."""
    number, wanted = 0, []
    for file, (kind, values) in enumerate(zip(column.types, column.values, strict=True)):
        numbers = range(number, number := number + len(values))
        table = pa.table({"id": numbers, "text": [f"document {one}" for one in numbers], "x": pa.array(values, kind)})
        pq.write_table(table, source / f"{file}.parquet")
        wanted += [(value, value if isinstance(value, str | None) else json_text(value)) for value in table["x"].to_pylist()]
    return wanted


def json_text(value: Any) -> str:
    return value.isoformat() if isinstance(value, date) else json.dumps(value, separators=(",", ":"), default=str)


def write_json(source: Path, column: JsonColumn) -> Wanted:
    """One file: the values as Python's parser reads them, and as they stand in the line."""
    fields = ["" if value is None else f', "x": {value}' for value in column.values]
    lines = [f'{{"id": {number}, "text": "document {number}"{field}}}\n' for number, field in enumerate(fields)]
    (source / "0.jsonl").write_text("".join(lines), encoding="utf-8")
    return [(None, None) if value is None else parsed(value) for value in column.values]


def parsed(token: str) -> tuple[Any, str | None]:
    """A JSON value. UTF-8 has no lone surrogates: U+FFFD stands for each."""
    value = json.loads(token)
    if isinstance(value, str):
        value = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return value, value if isinstance(value, str | None) else token.replace(", ", ",").replace(": ", ":")


def require(holds: bool, what: str, found: str) -> None:
    if not holds:
        raise AssertionError(f"{what}: {found}")


def page(model: str) -> str:
    """The whole page. Raises AssertionError where a value is lost or changed."""
    parts = [INTRODUCTION]
    for title, exports in EXPORTS.items():
        parts.append(table(title, ["what", "keys", "outcome"], (export_cells(model, export) for export in exports)))
    for title, columns in (("Types of Parquet columns", PARQUET), ("Types of JSON fields", JSON)):
        parts.append(table(title, ["a kept column of", "comes out as"], (column_cells(model, column) for column in columns)))
    return "\n".join(parts)


def table(title: str, heads: Sequence[str], rows: Iterator[list[str]]) -> str:
    lines = (f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n" for cells in [heads, ["---"] * len(heads), *rows])
    return f"## {title}\n\n{''.join(lines)}"


if __name__ == "__main__":
    PAGE.write_text(page(sys.argv[1]), encoding="utf-8")
