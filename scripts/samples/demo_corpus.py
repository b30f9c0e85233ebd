"""Writes the demo corpus: Python's own documentation, as Parquet and JSONL files.

    python scripts/samples/demo_corpus.py OUT [--rows-per-file N]

Each documentation topic and each docstring of the standard library is a document. They are real prose and code with a few
very long texts, and every machine that has Python has them. Columns:

    id      str   dotted name of what the text documents (`json.decoder.JSONDecoder`, `topic:assert`)
    kind    str   topic | module | class | function
    title   str   the name; a function's arguments follow it
    text    str   the documentation

Sources are parsed, never imported, so installed packages do not change the corpus. Half of the files are Parquet with several
row groups, half are JSONL.
"""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import shutil
import sysconfig
import warnings
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

SCHEMA = pa.schema([(name, pa.string()) for name in ("id", "kind", "title", "text")])
SKIPPED = {"test", "tests", "idlelib", "site-packages", "lib2to3", "turtledemo", "__pycache__", "pydoc_data"}
ROWS_PER_GROUP = 512


def documents() -> Iterator[dict[str, str]]:
    """Every document of the corpus, sorted by id. Ids are unique."""
    by_id = {document["id"]: document for source in (topics(), docstrings()) for document in source}
    return (by_id[key] for key in sorted(by_id))


def topics() -> Iterator[dict[str, str]]:
    """The topics of the language reference that `help()` shows."""
    # A plain import would not pass mypy: the module has no stubs.
    for name, text in importlib.import_module("pydoc_data.topics").topics.items():
        yield {"id": f"topic:{name}", "kind": "topic", "title": name, "text": text.strip()}


def docstrings() -> Iterator[dict[str, str]]:
    """Modules, classes and functions of the standard library that have a docstring."""
    root = Path(sysconfig.get_path("stdlib"))
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        if SKIPPED.intersection(parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(path.read_bytes())
        except SyntaxError:  # a template, not a module
            continue
        yield from walk(tree, ".".join(part for part in parts if part != "__init__"))


def walk(node: ast.AST, name: str) -> Iterator[dict[str, str]]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            kind = {ast.Module: "module", ast.ClassDef: "class"}.get(type(node), "function")
            arguments = f"({ast.unparse(node.args)})" if hasattr(node, "args") else ""
            yield {"id": name, "kind": kind, "title": name + arguments, "text": text}
        for child in node.body:
            if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child, f"{name}.{child.name}")


def write(out: Path, rows_per_file: int) -> int:
    """Writes the corpus as a new folder, alternating Parquet and JSONL. Returns the number of documents.

    The folder appears when it is complete, so that an interrupted demo can start again."""
    partial = out.with_name(f"{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    rows = list(documents())
    for number, start in enumerate(range(0, len(rows), rows_per_file)):
        part = rows[start : start + rows_per_file]
        if number % 2 == 0:
            table = pa.Table.from_pylist(part, schema=SCHEMA)
            pq.write_table(table, partial / f"part-{number:03d}.parquet", row_group_size=ROWS_PER_GROUP)
        else:
            lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
            (partial / f"part-{number:03d}.jsonl").write_text("".join(lines), encoding="utf-8")
    partial.rename(out)
    return len(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Writes the demo corpus: Python's own documentation.")
    parser.add_argument("out", type=Path, help="folder of the files")
    parser.add_argument("--rows-per-file", type=int, default=2048, help="documents of a file (default: %(default)s)")
    options = parser.parse_args()
    print(f"{write(options.out, options.rows_per_file):,} documents in {options.out}")
