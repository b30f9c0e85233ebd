"""README and the manual: commands and options that exist, snippets that parse, links that lead somewhere, a README of one page."""

from __future__ import annotations

import ast
import re
import shlex
import tomllib
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer

from bulkembed.cli.app import app
from bulkembed.config.run_config import RunConfig
from tests.support.processes import ROOT

PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")] + sorted((ROOT / "docs").rglob("*.md"))
MAX_README_LINES = 150
REQUIRED = {"source": "s3://corpus/docs", "output": "s3://corpus/vectors", "model": "Qwen/Qwen3-Embedding-0.6B"}
RELIABILITY, PROMISES = "docs/reliability.md", [("broken by", 40), ("held by", 60)]
PARTS = re.compile(r"\s(?:&&|\|\||[|;>])\s|\s#\s")  # what may follow a command on its line
INLINE = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A block of code: language ("" where none is given) and text."""

    language: str
    text: str


def blocks(page: Path) -> Iterator[Block]:
    """Fenced blocks, and indented ones."""
    text = page.read_text(encoding="utf-8")
    fenced = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    yield from (Block(language, code) for language, code in fenced.findall(text))
    yield from (Block("", code) for code in re.findall(r"(?:^\n)((?: {4}.*\n)+)", fenced.sub("", text), re.MULTILINE))


def prose(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)


def command_lines(page: Path) -> Iterator[list[str]]:
    """Command lines of bulkembed, of its jobs and of scripts, in blocks and in prose, as a shell splits them."""
    lines = [line for block in blocks(page) if block.language in ("", "sh", "bash") for line in joined_lines(block.text)]
    for line in lines + INLINE.findall(prose(page)):
        part = PARTS.split(f"{line.strip()} ")[0].strip()
        if re.match(r"(bulkembed|python jobs/\w+\.py|scripts/\w+)(\s|$)", part):
            yield shlex.split(part)


def joined_lines(text: str) -> list[str]:
    return text.replace("\\\n", " ").splitlines()


def of_kind(language: str) -> list[Any]:
    return [
        pytest.param(block.text, id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(blocks(page))
        if block.language == language
    ]


def require_options(command: Any, arguments: list[str]) -> None:
    """Fails where an option is none of `command`, or where it has a `--set` key that no configuration has."""
    names = {name for parameter in command.params for name in parameter.opts} | {"--help", "-h"}
    for argument, following in pairwise([*arguments, ""]):
        if re.match(r"--?[a-z]", argument):
            assert argument.partition("=")[0] in names, f"{command.name} has no option {argument}"
        if argument == "--set" and following and following != "KEY=VALUE":
            require_key(following.partition("=")[0].split("."))


def require_key(path: list[str]) -> None:
    model: Any = RunConfig
    for name in path:
        if model is dict:
            return
        fields = getattr(model, "model_fields", {})
        assert name in fields, f"no key {'.'.join(path)}"
        model = fields[name].annotation if hasattr(fields[name].annotation, "model_fields") else dict


def require_command(application: typer.Typer, arguments: list[str]) -> None:
    group: Any = typer.main.get_command(application)
    if not arguments or arguments[0].startswith("-"):
        return require_options(group, arguments)
    assert arguments[0] in group.commands, f"no command {arguments[0]}"
    return require_options(group.commands[arguments[0]], arguments[1:])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_and_options_exist(page: Path) -> None:
    from scripts.benchmarks.__main__ import app as benchmarks

    for first, *rest in command_lines(page):
        if first == "bulkembed":
            require_command(app, [] if rest == ["COMMAND", "--help"] else rest)
        elif first == "python":
            assert (ROOT / rest[0]).is_file(), f"there is no {rest[0]}"
        else:
            assert (ROOT / first).is_file(), f"there is no {first}"
            if first == "scripts/bench" and rest and rest[0] != "ROW":
                require_command(benchmarks, rest)


def test_a_command_or_option_that_does_not_exist_is_noticed() -> None:
    for wrong in (["gather"], ["run", "--sauce", "x"], ["run", "--set", "engine.speed=1"], ["verify", "--keep-column=x"]):
        with pytest.raises(AssertionError):
            require_command(app, wrong)


@pytest.mark.parametrize("text", of_kind("toml"))
def test_toml_is_a_configuration(text: str) -> None:
    RunConfig.model_validate(REQUIRED | tomllib.loads(text))


@pytest.mark.parametrize("text", of_kind("python"))
def test_python_compiles(text: str) -> None:
    ast.parse(text)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(prose(page)):
        if link.startswith(("https://", "http://")):
            continue
        place, _, anchor = link.partition("#")
        target = page.parent / place if place else page
        assert target.exists(), f"{page.name} links to {link}"
        assert not anchor or anchor in anchors(target), f"{page.name} links to {link}"


def anchors(page: Path, level: str = "#+") -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(rf"^{level} (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", [page for page in PAGES if page.name != "CHANGELOG.md"], ids=lambda page: page.name)
def test_modules_and_tests_that_are_named_exist(page: Path) -> None:
    roots = (ROOT, ROOT / "pipeline" / "bulkembed")
    for name in INLINE.findall(prose(page)):
        if re.fullmatch(r"[\w/]+/\w+\.py", name):
            assert any((root / name).is_file() for root in roots), f"{page.name} names {name}"
        elif re.fullmatch(r"test_\w+", name):
            assert list((ROOT / "tests").rglob(f"{name}.py")), f"{page.name} names {name}"


@pytest.mark.parametrize(("page", "header", "least"), [("SECURITY.md", "tested by", 15), *((RELIABILITY, *each) for each in PROMISES)])
def test_every_promise_names_tests_that_exist(page: str, header: str, least: int) -> None:
    rows = rows_below(header, (ROOT / page).read_text(encoding="utf-8"))
    assert len(rows) > least
    for row in rows:
        named = [name for name in INLINE.findall(row.rpartition(" | ")[2]) if name.startswith(("test_", "scripts/"))]
        assert named, f"no test: {row}"
        assert [name for name in named if not is_check(name)] == [], row


def test_a_promise_without_a_test_is_noticed() -> None:
    assert rows_below("held by", "| promise | held by |\n| --- | --- |\n| a | `b` |\n| c | d |\n\n| e | f |\n") == ["a | `b`", "c | d"]
    known = ("test_docs", "test_docs::test_the_readme_is_one_page", "scripts/chaos")
    unknown = ("test_none", "test_docs::test_the_readme", "test_docs::", "scripts/none")
    assert [*map(is_check, known + unknown)] == [True] * 3 + [False] * 4


def rows_below(header: str, text: str) -> list[str]:
    """The rows of all tables whose last column has this header."""
    tables = re.findall(rf"^\|.* \| {header} \|\n\|[- |]+\|\n((?:\|.*\|\n)*)", text, re.MULTILINE)
    return [row.removeprefix("| ").removesuffix(" |") for table in tables for row in table.splitlines()]


def is_check(name: str) -> bool:
    """Whether this is a script, or a test: `test_file`, or `test_file::test_function`."""
    if name.startswith("scripts/"):
        return (ROOT / name).is_file()
    file, colons, function = name.partition("::")
    texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(f"{file}.py")]
    return any(not colons or f"\ndef {function}(" in text for text in texts)


def test_every_page_of_the_manual_is_in_the_index_of_the_readme() -> None:
    linked = set(LINK.findall((ROOT / "README.md").read_text(encoding="utf-8")))
    assert {str(page.relative_to(ROOT)) for page in PAGES if page.parent in (ROOT, ROOT / "docs")} - {"README.md"} <= linked


def test_every_decision_is_in_the_index_of_decisions() -> None:
    linked = set(LINK.findall((ROOT / "docs" / "decisions.md").read_text(encoding="utf-8")))
    for page in sorted((ROOT / "docs" / "decisions").glob("*.md")):
        assert {f"decisions/{page.name}#{anchor}" for anchor in anchors(page, "##")} <= linked


def test_the_readme_is_one_page() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= MAX_README_LINES


def test_the_picture_names_no_folder_of_a_machine() -> None:
    drawn = (ROOT / "docs" / "demo.svg").read_text(encoding="utf-8")
    assert "bulkembed&#160;verify" in drawn
    assert not re.search(r"&#160;/\w|>/\w|https?://(?!www\.w3\.org|www\.textualize\.io)", drawn)
