"""The import rules of the package, and a few things that must not be in it, over the syntax tree."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
MODULES = {path.stem: path for path in (ROOT / "pipeline").glob("*.py")}
LAYERS = [
    {"errors", "records", "host", "ranges", "kernels", "engine_args", "credentials", "__init__"},
    {"template", "places", "refusals"},
    {"config", "signals"},
    {"retry", "hub", "compression", "own_ray"},
    {"listing"},
    {"local_tree", "remote_tree"},
    {"storage", "schema"},
    {"conversion", "tables"},
    {"jsonlines"},
    {"sources"},
    {
        "manifest",
        "overlap",
        "sampling",
        "reader",
        "tokenizer",
        "bucketing",
        "chunking",
        "embedder",
        "matryoshka",
        "writer",
        "ledger",
        "model",
        "placement",
        "guards",
        "backlog",
        "losses",
    },
    {"pieces", "gate", "loading", "tune", "metrics", "columns"},
    {"stages", "search", "reference", "here"},
    {"publication", "calibration", "joining"},
    {"verify", "worker", "estimate"},
    {"run"},
    {"cluster"},
    {"dataflow"},
    {"report", "tuning"},
    {"flags", "console"},
    {"inspection"},
    {"cli"},
    {"__main__"},
]
LEVEL = {name: number for number, names in enumerate(LAYERS) for name in names}
ONLY_IN = {
    "ray": {"dataflow", "cluster", "joining", "own_ray"},
    "vllm": {"embedder", "kernels"},
    "torch": {"embedder", "kernels", "reference"},
    "sentence_transformers": {"reference"},
    "transformers": {"reference"},
    "fsspec": {"storage", "listing", "remote_tree", "compression"},
    "s3fs": {"storage"},
    "typer": {"cli", "flags", "inspection"},
    "huggingface_hub": {"hub"},
}
TOP_LEVEL_FREE = {"ray", "vllm", "torch", "huggingface_hub"}  # imported inside functions: they take seconds
SAME_LAYER = {("storage", "schema")}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def test_every_module_has_a_layer() -> None:
    assert set(MODULES) == set(LEVEL)


@pytest.mark.parametrize("name", sorted(MODULES))
def test_modules_import_only_from_the_layers_below(name: str) -> None:
    for imported in imports(parsed(MODULES[name])):
        parts = imported.split(".")
        if parts[0] != "pipeline":
            continue
        other = parts[1] if parts[1] in LEVEL else "__init__"
        if (name, other) not in SAME_LAYER:
            assert LEVEL[other] < LEVEL[name], f"{name} must not import {other}"


@pytest.mark.parametrize("name", sorted(MODULES))
def test_heavy_libraries_stay_where_they_belong(name: str) -> None:
    tree = parsed(MODULES[name])
    for imported in imports(tree):
        library = imported.split(".")[0]
        assert name in ONLY_IN.get(library, {name}), f"{name} must not import {library}"
    at_top = {imported.split(".")[0] for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom) for imported in imports(node)}
    assert not at_top & TOP_LEVEL_FREE


@pytest.mark.parametrize("name", sorted(MODULES))
def test_what_must_not_be_in_the_package(name: str) -> None:
    for node in ast.walk(parsed(MODULES[name])):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                raise AssertionError(f"{name}:{node.lineno} prints")
            case ast.Attribute(value=ast.Name(id="os"), attr="environ" | "getenv") if name not in (
                "cli",
                "cluster",
                "here",
                "host",
                "hub",
                "joining",
                "worker",
            ):
                raise AssertionError(f"{name}:{node.lineno} reads the environment")
            case ast.Import(names=names) | ast.ImportFrom(names=names):
                assert not {"pickle", "marshal", "shelve"} & {alias.name for alias in names}
            case ast.keyword(arg="trust_remote_code"):
                raise AssertionError(f"{name} runs code of models")
            case ast.Attribute(attr="read_table"):
                raise AssertionError(f"{name}:{node.lineno} may bring the process down as it ends: see schema.table_of")
            case ast.ExceptHandler(body=[ast.Pass()]):
                raise AssertionError(f"{name}:{node.lineno} swallows an exception")


@pytest.mark.parametrize("path", sorted([*ROOT.glob("pipeline/*.py"), *ROOT.glob("jobs/*.py")]), ids=lambda path: path.name)
def test_functions_and_files_stay_small(path: Path) -> None:
    tree = parsed(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name} has grown too long"


def test_the_readme_has_a_line_for_every_module() -> None:
    files = (ROOT / "README.md").read_text(encoding="utf-8").partition("    pipeline/\n")[2].partition("    jobs/")[0]
    assert sorted(line.split()[0] for line in files.splitlines()) == sorted(path.name for path in (ROOT / "pipeline").glob("*.py"))
