"""What the command line makes of its arguments, in this process."""

from __future__ import annotations

import io
import os
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from bulkembed.cli import console
from bulkembed.cli.app import app
from bulkembed.cli.model_commands import MODEL_KEYS, TUNE_KEYS
from bulkembed.cli.options import RUN_KEYS, Command, load_config, places
from bulkembed.cli.run_commands import RETRY_KEYS
from bulkembed.config.error_lines import KEYS
from bulkembed.config.settings import parse_setting, unescape
from bulkembed.errors import ConfigError
from tests.support.corpora import write_jsonl
from tests.support.processes import ROOT
from tests.support.runs import in_one_process, simulated

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


@pytest.mark.parametrize("name", ["plan", "run", "reindex", "retry-rejects", "tune", "check"])
def test_the_options_of_a_run_are_those_of_its_configuration(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    app([name, "--help"], standalone_mode=False)
    shown = " ".join(capsys.readouterr().out.split()).replace("- ", "-")
    expected = {"check": MODEL_KEYS, "tune": TUNE_KEYS, "retry-rejects": RETRY_KEYS}.get(name, RUN_KEYS)
    keys = [KEYS[option.name] for option in COMMANDS[name].params if option.name in RUN_KEYS]
    assert [key.name for key in keys] == expected
    for key in keys:
        default = "[required, here or in --config]" if key.default is None else f"[default: {key.default}]"
        assert key.description.replace("- ", "-") in shown
        assert f"{key.description}{' Repeatable.' if key.repeats else ''} {default}".replace("- ", "-") in shown
        assert all(choice in shown for choice in key.choices)


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_takes_a_configuration_and_every_default_is_shown(name: str) -> None:
    options = {option.name: option for option in COMMANDS[name].params}
    assert {"config", "settings"} <= options.keys()
    for option in options.values():
        told = "[default: " in option.help or "[required" in option.help
        assert told or option.required or option.is_flag or option.show_default, f"{name} {option.name}"


def test_help_has_a_whole_sentence_for_each_command() -> None:
    group = get_command(app)
    shown = group.get_help(group.make_context("bulkembed", [], resilient_parsing=True)).partition("Commands:")[2]
    assert len(shown.split("\n  ")) - 1 == len(COMMANDS)
    assert "..." not in shown


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
        (["plan", "--model", "one", "--model", "two"], "--model: is given 2 times, and takes one value"),
        (["plan", *RUN, "--source", "in/"], "source: '.*/in' is named twice"),
        (["plan", "--template", "a", "--template=b"], "--template: is given 2 times"),
        (["run", "--limit", "1", "--limit", "1", "--limit", "1"], "--limit: is given 3 times"),
        (["search", "--output", "o", "--query", "q", "-k", "3", "-k", "4"], "-k: is given 2 times"),
        (["verify", "--output", "a", "--output", "b"], "--output: is given 2 times"),
        (["plan", *RUN, "--set", "engine.step_tokens=64", "--set", "engine.step_tokens=65"], "engine.step_tokens: is set twice"),
        (["plan", *RUN, "--max-tokens", "5", "--set", "max_tokens=6"], "max_tokens: is set twice on the command line; give it once"),
        (["verify", "--output", "a", "--set", "engine.kind=simulated"], "--set engine: does nothing here"),
        (["verify", "--output", "a", "--source", "b"], "source: is read only together with --sample N"),
        (["verify", "--output", "a", "--sample", "3"], "sample: needs the source"),
        (["verify", "--output", "a", "--model", "b"], "model: is read only together with --sample N"),
        (["verify", "--output", "a", "--seed", "0"], "seed: is read only together with --sample N"),
        (["search", "--output", "a", "--query", " "], "query: must not be empty"),
        (["search", "--output", "a", "--query", "q", "--prompt-name", "b", "--instruction", "c"], "prompt_name: give only one of"),
        (["status", "--output", "zip://a::b.zip"], "a file system inside another one is not read"),
        (["status", "--output", "simplecache::s3://b/c"], "a file system inside another one is not read"),
        (["tune", "--source", "in", "--model", "m", "--max-deletes", "1"], "--max-deletes: no such option"),
        (["plan", *RUN, "--limit", "1", "--allow-deletes", "1"], "allow_deletes: does nothing with limit"),
        (["plan", *RUN, "--limit", "1", "--run-key", "monday"], "run_key: does nothing with limit"),
        (["tune", "--source", "in", "--model", "m", "--set", "max_deletes=1"], "--set max_deletes: does nothing here"),
        (["check", "--model", "m", "--set", "shards.max_rows=5"], "--set shards: does nothing here"),
        (["plan", *RUN, "--text-column", "a", "--text-column", "a"], "text_columns: 'a' is named twice"),
        (["plan", *RUN, "--exclude", "./"], "exclude: must name something below the source"),
        (["plan", *RUN, "--exclude", "a", "--exclude", "a"], "exclude: 'a' is named twice"),
        (["plan", *RUN, "--require", ""], "require: must not be empty"),
        (["plan", *RUN, "--run-key", " "], "run_key: must not be empty"),
        (["plan", *RUN, "--set", "source=[]"], "source: is set twice"),
        (["plan", "--output", "o", "--model", "m", "--set", "source=[]"], "source: expected a string or a list of strings"),
        (["plan", "--output", "o", "--model", "m", "--set", "source=[5]"], "source: expected a string or a list of strings"),
        (["plan", *RUN, "--set", "engine.tokens_per_second=5"], "engine: tokens_per_second: is the speed of the simulated engine"),
        (["plan", *RUN, "--set", "engine.max_replicas=1", "--set", "engine.replicas=2"], "engine: max_replicas: must be at least replicas"),
        (["run", "--keep-columns", "x"], "--keep-columns: no such option; did you mean --keep-column\\?$"),
        (["run", "--step-tokens", "64"], "--step-tokens: no such option; give --set engine.step_tokens=VALUE$"),
        (["run", "--dedupe"], "--dedupe: no such option; give --set dedupe=VALUE$"),
        (["plan", "--num-cpus=4"], "--num-cpus: no such option; give --set engine.num_cpus=VALUE or --set ray.num_cpus=VALUE$"),
        (["plan", "--engine.kind", "vllm"], "--engine.kind: no such option; give --set engine.kind=VALUE$"),
        (["plan", "--prize", "4"], "--prize: no such option$"),
        (["plan", "--price", "4"], "--price: no such option; did you mean --price-per-hour or --api-price\\?$"),
        (["status", "--step-tokens", "64"], "--step-tokens: no such option$"),
        (["files", "--source", "in"], "--source: no such option$"),
        (["check", "--models", "m"], "--models: no such option; did you mean --model\\?$"),
        (["status"], "output: is required .a flag --output, or a key in the --config file.$"),
        (["search", "--query", "x"], "output: is required"),
        (["check"], "model: is required"),
        (["tune"], "source: is required"),
        (["plan", *RUN, "--max-tokens", "many"], "max_tokens: expected an integer, such as 8192 .got 'many'.$"),
        (["plan", *RUN, "--max-rejects", "few"], "max_rejects: expected a number, such as 0.05 .got 'few'.$"),
        (["plan", *RUN, "--dims", "a,b"], "dims: expected a list of integers, such as .1024, 256. .got 'a,b'.$"),
        (["check", "--model", "m", "--dtype", "int4"], "dtype: expected one of float32, float16, int8, binary .got 'int4'.$"),
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
        text_columns=["a", "b"],
        template="{a}{b}",
        keep_columns=["c", "d"],
    )
    assert (cfg.text_columns, cfg.keep_columns) == (("a", "b"), ("c", "d"))
    assert (cfg.engine.step_tokens, cfg.engine.args) == (64, {"a": 1, "b": 2})
    assert places(None, ["storage.a.b=1", "storage.a.c=2"], output="out").store.settings == {"a": {"b": 1, "c": 2}}


def test_a_file_and_a_model_may_be_named_from_home_or_by_a_scheme(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "run.toml").write_text(f'source = "~/in"\noutput = "~/out"\nmodel = "file://{qwen}"\n')
    cfg = load_config([Path("~/run.toml")], None)
    assert (cfg.source, cfg.output, cfg.model) == (f"{tmp_path}/in", f"{tmp_path}/out", qwen)


CONFIG = """
source = "s3://corpus/docs"
output = "s3://corpus/vectors"
model = "org/model"
limit = 5
[storage]
anon = true
client_kwargs = { region_name = "eu" }
"""


def test_commands_on_a_dataset_take_its_places_from_the_configuration_of_the_run(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(CONFIG)
    at = places([path], None)
    assert (at.output, at.sources, at.model) == ("s3://corpus/vectors", ("s3://corpus/docs",), "org/model")
    assert at.store.settings == {"anon": True, "client_kwargs": {"region_name": "eu"}}
    at = places([path], ["storage.anon=false"], output="s3://other/vectors", model="other/model")
    assert (at.output, at.sources, at.model) == ("s3://other/vectors", ("s3://corpus/docs",), "other/model")
    assert at.store.settings == {"anon": False, "client_kwargs": {"region_name": "eu"}}
    at = places(None, None, output="out")
    assert (at.output, at.sources, at.model) == (str(Path.cwd() / "out"), (), None)


@pytest.mark.parametrize("command", [["status"], ["files"], ["verify"], ["search", "--query", "x"]])
def test_keys_that_a_command_does_not_need_are_validated(command: list[str], tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text(f"{CONFIG}[engine]\nstep_token = 5\n")
    with pytest.raises(ConfigError, match=r"^engine.step_token: unknown key; did you mean engine.step_tokens\?$"):
        app([*command, "--config", str(path)], standalone_mode=False)


def test_one_configuration_serves_all_commands(tmp_path: Path, qwen: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": f"word {n}", "lang": "xx"} for n in range(30)])
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    path = tmp_path / "run.toml"
    path.write_text(f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\n[engine]\nkind = "simulated"\n')
    for command, shown in (
        (["status"], "current: snapshot 1"),
        (["files"], f"{tmp_path}/out/data/"),
        (["verify"], "2 files, 30 documents"),
        (["verify", "--sample", "5"], "5 rows again"),
        (["search", "--query", "word 7", "-k", "2"], "lang: xx"),
        (["check"], "ok"),
    ):
        app([*command, "--config", str(path)], standalone_mode=False)
        assert shown in capsys.readouterr().out


def test_help_is_quick_and_imports_nothing_heavy() -> None:
    probe = (
        "import sys, bulkembed.cli.app;"
        "print([m for m in ('ray', 'vllm', 'torch', 'pyarrow', 's3fs', 'fsspec', 'huggingface_hub') if m in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", probe], cwd=ROOT, text=True).strip() == "[]"
    assert min(cpu_seconds([sys.executable, "-m", "bulkembed", "--help"]) for _ in range(3)) < MAX_HELP_SECONDS


MAX_HELP_SECONDS = 0.5  # of a CPU, which an idle host gives at once: how busy this one is makes no difference


def cpu_seconds(command: list[str]) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL, check=True, env=os.environ | {"OPENBLAS_NUM_THREADS": "1"})
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def test_a_letter_that_the_terminal_lacks_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="ascii") for _ in range(2)]
    monkeypatch.setattr(sys, "stdout", streams[0])
    monkeypatch.setattr(sys, "stderr", streams[1])
    console.replace_unprintable()
    console.out.print("source ünï: \udcff", markup=False)
    console.err.print("ünï", markup=False)
    for stream, wanted in zip(streams, (b"source ?n?: \\udcff\n", b"?n?\n"), strict=True):
        stream.flush()
        assert stream.buffer.getvalue() == wanted
