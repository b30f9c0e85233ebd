"""The rooms of the package and what each may import, and a few things that must not be in it, over the syntax tree."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pipeline" / "bulkembed"
MODULES = {str(path.relative_to(PACKAGE).with_suffix("")): path for path in sorted(PACKAGE.rglob("*.py"))}
TOP = "(top)"
# What each room may import, beside itself and the files at the top of the package.
ROOMS = {
    TOP: set[str](),
    "config": {"storage"},
    "storage": set[str](),
    "formats": {"storage"},
    "source": {"config", "storage", "formats"},
    "text": {"config"},
    "embedding": {"config", "text", "vectors"},
    "vectors": set[str](),
    "dataset": {"storage", "vectors"},
    "runs": {"config", "storage", "source", "text", "embedding", "vectors", "dataset"},
    "cluster": {"config", "embedding", "runs"},
    "tuning": {"config", "embedding", "runs", "cluster"},
    "inspection": {"config", "storage", "source", "text", "embedding", "vectors", "dataset", "runs"},
    "report": {"config", "storage", "source", "embedding", "dataset", "runs", "tuning", "inspection"},
}
ROOMS["cli"] = set(ROOMS) - {TOP}
# Files at the top that may import what others there may not. The command line is a client of `api`.
ENTRANCES = {"__main__": {"cli"}, "api": set(ROOMS) - {TOP, "cli"}, "upkeep": {"dataset", "runs", "storage"}}
ENTRANCES["history"] = {"config", "dataset", "runs"}
ENTRANCES["planned"] = {"config", "report", "runs", "source"}
IMPORT_API = {"__init__", "cli"}
ONLY_IN = {
    "ray": {"cluster"},
    "vllm": {"embedding/vllm_engine", "embedding/vllm_patches"},
    "torch": {"embedding/vllm_engine", "embedding/vllm_patches", "embedding/reference"},
    "sentence_transformers": {"embedding/reference"},
    "transformers": {"embedding/reference"},
    "fsspec": {"storage"},
    "s3fs": {"storage"},
    "typer": {"cli"},
    "rich": {"cli"},
    "safetensors": {"embedding/reference"},
    "tokenizers": {"text", "embedding/model_files"},
    "pickle": set[str](),
    "marshal": set[str](),
    "shelve": set[str](),
    "huggingface_hub": {"embedding/hub"},
    "deltalake": {"source/delta"},
    "pyiceberg": {"source/iceberg"},
}
TOP_LEVEL_FREE = {"ray", "vllm", "torch", "huggingface_hub", "deltalake", "pyiceberg"}  # imported inside functions: slow, or extras
READS_ENVIRONMENT = {
    "cli/app",
    "cluster/connect",
    "cluster/joining",
    "cluster/worker",
    "embedding/hardware",
    "embedding/hub",
    "embedding/in_process",
    "process_state",
}


def room_of(name: str) -> str:
    return name.partition("/")[0] if "/" in name else TOP


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"line {node.lineno}: a relative import does not show its room"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imports_outside_functions(node: ast.AST) -> Iterator[ast.AST]:
    """The imports that importing a module executes, also those below `if`, `try` and `class`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child
        elif not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) and not is_for_types(child):
            yield from imports_outside_functions(child)


def is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imported_modules(name: str) -> Iterator[str]:
    """Modules of the package, as `storage/store`."""
    for imported in imports(parsed(MODULES[name])):
        package, *parts = imported.split(".")
        if package == "bulkembed":
            yield module_named(parts)


def module_named(parts: list[str]) -> str:
    """The module that holds what is imported. Every name of the package itself but its version is one of `api`."""
    if parts == ["__version__"]:
        return "__init__"
    path = "/".join(parts[:2])
    return next((name for name in (path, *parts[:1], f"{path}/__init__") if name in MODULES), "api")


@pytest.mark.parametrize(
    "line", ["import bulkembed.runs", "from bulkembed import runs", "from bulkembed.runs import job", "import bulkembed.runs.job"]
)
def test_every_way_to_import_a_room_is_seen(line: str) -> None:
    assert {room_of(module_named(name.split(".")[1:])) for name in imports(ast.parse(line))} == {"runs"}


@pytest.mark.parametrize("line", ["import bulkembed", "from bulkembed import run", "from bulkembed import api", "import bulkembed.api"])
def test_every_way_to_import_the_api_is_seen(line: str) -> None:
    assert [module_named(name.split(".")[1:]) for name in imports(ast.parse(line))] == ["api"]


@pytest.mark.parametrize(
    "statement", ["import ray", "if True:\n    import ray", "try:\n    import ray\nfinally:\n    1", "class A:\n    import ray"]
)
def test_an_import_outside_functions_is_seen(statement: str) -> None:
    assert len(list(imports_outside_functions(ast.parse(f"{statement}\ndef late():\n    import torch\n")))) == 1


def test_every_folder_is_a_room() -> None:
    assert {room_of(name) for name in MODULES} == set(ROOMS)


@pytest.mark.parametrize("name", MODULES)
def test_a_room_imports_only_what_it_may(name: str) -> None:
    room = room_of(name)
    allowed = {TOP, room} | ROOMS[room] | ENTRANCES.get(name, set())
    for other in imported_modules(name):
        assert room_of(other) in allowed, f"{name} must not import {other}"
        assert other != "api" or {name, room} & IMPORT_API, f"{name} must not import {other}"


def test_no_module_imports_itself_by_way_of_others() -> None:
    above: dict[str, set[str]] = {name: set(imported_modules(name)) - {"__init__"} for name in MODULES}
    while above:
        leaves = {name for name, needs in above.items() if not needs & above.keys()}
        assert leaves, f"in a circle: {sorted(above)}"
        above = {name: needs for name, needs in above.items() if name not in leaves}


@pytest.mark.parametrize("name", MODULES)
def test_heavy_libraries_stay_where_they_belong(name: str) -> None:
    tree = parsed(MODULES[name])
    for imported in imports(tree):
        library = imported.split(".")[0]
        assert {name, room_of(name)} & ONLY_IN.get(library, {name}), f"{name} must not import {library}"
    at_once = {imported.split(".")[0] for node in imports_outside_functions(tree) for imported in imports(node)}
    assert not at_once & TOP_LEVEL_FREE


@pytest.mark.parametrize("name", [name for name in MODULES if name.endswith("/__init__")])
def test_the_front_of_a_room_is_empty(name: str) -> None:
    assert MODULES[name].read_text(encoding="utf-8") == ""


@pytest.mark.parametrize("name", MODULES)
def test_what_must_not_be_in_the_package(name: str) -> None:
    for node in ast.walk(parsed(MODULES[name])):
        match node:
            case ast.Call(func=ast.Name(id="print")):
                raise AssertionError(f"{name}:{node.lineno} prints")
            case ast.Attribute(attr="environ" | "getenv") | ast.alias(name="environ" | "getenv") if name not in READS_ENVIRONMENT:
                raise AssertionError(f"{name}:{node.lineno} reads the environment")
            case ast.Name(id="__import__") | ast.Attribute(attr="import_module") | ast.alias(name="import_module"):
                raise AssertionError(f"{name}:{node.lineno} imports what no test sees")
            case ast.keyword(arg="trust_remote_code"):
                raise AssertionError(f"{name} runs code of models")
            case ast.Attribute(attr="read_table"):
                raise AssertionError(f"{name}:{node.lineno} may bring the process down as it ends: see schema.table_of")
            case ast.ExceptHandler(body=[ast.Pass() | ast.Expr(value=ast.Constant())]):
                raise AssertionError(f"{name}:{node.lineno} swallows an exception")


@pytest.mark.parametrize("path", [*MODULES.values(), *sorted(ROOT.glob("jobs/*.py"))], ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_and_files_stay_small(path: Path) -> None:
    tree = parsed(path)
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 320
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{path.name}: {node.name} has grown too long"


def test_the_map_of_the_house_has_a_line_for_every_module() -> None:
    room, listed = "", []
    for line in (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"## `(\w+)/`", line):
            room = f"{heading[1]}/"
        elif module := re.match(r" {4}(\w+)\.py ", line):
            listed.append(f"{room}{module[1]}")
    assert sorted(listed) == sorted(name for name in MODULES if not name.endswith("/__init__"))


def test_the_map_of_the_house_says_what_each_room_may_import() -> None:
    rows = re.findall(
        r"^\| ((?:`\w+/`(?:, )?)+) \| (.+) \|$", (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    stated = {room: set(allowed.split(", ")) - {"-"} for rooms, allowed in rows for room in re.findall(r"\w+", rooms)}
    assert stated.pop("cli") == {"all"}
    assert stated == {room: allowed for room, allowed in ROOMS.items() if room not in (TOP, "cli")}
