"""What the command line makes of its arguments, in this process."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bulkembed.cli import console
from bulkembed.cli.app import app
from bulkembed.cli.options import Command, load_config, storage_of
from bulkembed.config.settings import parse_setting, unescape
from bulkembed.errors import ConfigError
from tests.support.corpora import write_jsonl

COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]
RUN = ("--source", "in", "--output", "out", "--model", "m")


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_shows_every_word_of_every_option(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert app([name, "-h"], standalone_mode=False) in (0, None)
    short = capsys.readouterr().out
    assert app([name, "--help"], standalone_mode=False) in (0, None)
    assert capsys.readouterr().out == short
    shown = "".join(short.split())  # click breaks lines, also within a word at its hyphen
    for option in COMMANDS[name].params:
        assert option.help, f"{name} {option.name} has no help"
        assert "".join(option.help.split()) in shown
    assert isinstance(COMMANDS[name], Command), "takes an option twice without a word"


def test_help_of_all_commands(capsys: pytest.CaptureFixture[str]) -> None:
    app(["-h"], standalone_mode=False)
    shown = capsys.readouterr().out
    assert all(f"  {name} " in shown for name in COMMANDS)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (r"{title}\n\n{body}", "{title}\n\n{body}"),
        (r"a\tb", "a\tb"),
        (r"a\\nb", r"a\nb"),
        ("C:\\x \\d \\", "C:\\x \\d \\"),
        ("a\nb", "a\nb"),
    ],
)
def test_escapes(text: str, wanted: str) -> None:
    assert unescape(text) == wanted
    if "\n" not in text:
        assert parse_setting(f"prompt={text}") == {"prompt": wanted}


def test_a_template_of_a_shell_is_the_run_of_the_file(tmp_path: Path, qwen: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": 1, "title": "a", "body": "b"}])
    common = f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\ntext_columns = ["title", "body"]\n'
    texts = 'template = "{title}\\n\\t{{{body}}}"\nprompt = "Text:\\n"\n'
    (tmp_path / "common.toml").write_text(common)
    (tmp_path / "texts.toml").write_text(texts)
    given = {
        "file": ["--config", str(tmp_path / "texts.toml")],
        "flags": ["--template", r"{title}\n\t{{{body}}}", "--prompt", r"Text:\n"],
        "settings": ["--set", r"template={title}\n\t{{{body}}}", "--set", r'prompt="Text:\n"'],
    }
    fingerprints = set()
    for more in given.values():
        app(["plan", "--config", str(tmp_path / "common.toml"), *more], standalone_mode=False)
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "fingerprint" in line]
        fingerprints.add(line)
    assert len(fingerprints) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "--source", "one", "--source", "two"], "--source: is given 2 times, and takes one value"),
        (["plan", "--template", "a", "--template=b"], "--template: is given 2 times"),
        (["run", "--limit", "1", "--limit", "1", "--limit", "1"], "--limit: is given 3 times"),
        (["search", "--output", "o", "--query", "q", "-k", "3", "-k", "4"], "-k: is given 2 times"),
        (["verify", "--output", "a", "--output", "b"], "--output: is given 2 times"),
        (["plan", *RUN, "--set", "engine.step_tokens=64", "--set", "engine.step_tokens=65"], "engine.step_tokens: is set twice"),
        (["plan", *RUN, "--max-tokens", "5", "--set", "max_tokens=6"], "max_tokens: is set twice on the command line; give it once"),
        (["verify", "--output", "a", "--set", "engine.kind=simulated"], "--set engine: does nothing here"),
    ],
)
def test_what_could_not_all_be_honoured_is_refused(arguments: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        app(arguments, standalone_mode=False)


def test_lists_and_tables_repeat() -> None:
    cfg = load_config(
        None,
        ["engine.step_tokens=64", "engine.args.a=1", "engine.args.b=2"],
        source="in",
        output="out",
        model="m",
        text_column=["a", "b"],
        template="{a}{b}",
        keep_column=["c", "d"],
    )
    assert (cfg.text_columns, cfg.keep_columns) == (("a", "b"), ("c", "d"))
    assert (cfg.engine.step_tokens, cfg.engine.args) == (64, {"a": 1, "b": 2})
    assert storage_of(["storage.a.b=1", "storage.a.c=2"]).settings == {"a": {"b": 1, "c": 2}}


def test_a_letter_that_the_terminal_lacks_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    console.tolerate()
    console.out.print("source ünï: \udcff", markup=False)
    console.err.print("ünï", markup=False)
    for stream, wanted in zip(streams, (b"source ?n?: ?\n", b"?n?\n"), strict=True):
        stream.flush()
        assert stream.buffer.getvalue() == wanted
