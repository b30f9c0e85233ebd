"""The command line as a user meets it: exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.cli import console
from bulkembed.cli.app import main
from bulkembed.config.settings import parse_setting
from bulkembed.dataset.snapshots import newest_dataset, snapshots
from bulkembed.storage.store import Store
from bulkembed.text.tokenizer import Tokenizer
from tests.support.commands import in_process, job
from tests.support.corpora import write_corpus, write_jsonl
from tests.support.processes import ROOT, bulkembed
from tests.support.runs import here, in_one_process, live_names, read_dataset, simulated


@pytest.mark.ray
def test_plan_run_status_verify_search(tmp_path: Path, qwen: str) -> None:
    rows = write_corpus(tmp_path / "in")
    config = tmp_path / "run.toml"
    config.write_text(
        f'source = "{tmp_path}/in"\noutput = "{tmp_path}/out"\nmodel = "{qwen}"\n'
        'dims = [64, 32]\nmax_tokens = 64\nkeep_columns = ["lang"]\n'
        '[engine]\nkind = "simulated"\n[shards]\nmax_rows = 20\n'
    )
    planned = in_process("plan", "--config", config)
    assert planned.returncode == 0
    assert "  changes      documents: 200 added, 0 changed, 0 deleted\n" in planned.stdout
    assert "  to do        embed 200 documents, in 12 shards\n" in planned.stdout
    dry = in_process("run", "--config", config, "--dry-run")
    assert dry.returncode == 0
    assert "nothing written" in dry.stdout
    assert not (tmp_path / "out").exists()
    done = bulkembed("run", "--config", config)
    assert done.returncode == 0, done.stderr
    assert "12/12 shards  200 documents" in done.stdout
    assert done.stderr == "", "a good run has nothing to say there"
    again = in_process("run", "--config", config)
    assert "nothing is left to do" in again.stdout
    assert read_dataset(tmp_path / "out")["id"].to_pylist() == [row["id"] for row in rows]
    status = in_process("status", "--output", tmp_path / "out")
    assert "current: snapshot 1" in status.stdout
    verified = in_process("verify", "--output", tmp_path / "out")
    assert "12 files, 200 documents" in verified.stdout
    found = in_process("search", "--output", tmp_path / "out", "--query", "anything", "-k", "3")
    assert found.returncode == 0, found.stderr
    assert found.stdout.count("lang: xx") == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (["--set", "engin.kind=x"], "bulkembed: engin: unknown key; did you mean engine?"),
        (["--dims", "a,b"], "bulkembed: dims: expected a list of integers"),
        (["--dims", "65"], "bulkembed: dims: 65 is more than the 64"),
        (["--dims", "16"], "was not trained for vectors of 16 dimensions, only for 32..64 (--allow-untrained-dims"),
        (["--vectors", "32:int3"], "bulkembed: vectors: '32:int3' is not DIM:DTYPE"),
        (["--long-documents", "fold"], "bulkembed: long_documents: "),
        (["--chunk-overlap", "3"], "need long_documents = chunk or mean"),
        (["--prompt-name", "title"], "has no prompt 'title'"),
        (["--source", "/no/such"], "bulkembed: source /no/such: nothing there"),
        (["--id-column", "key"], "no column 'key'; its columns are id, text, lang"),
        (["--max-tokens", "many"], "bulkembed: max_tokens: expected an integer, such as 8192"),
        (["--config", "/no/such.toml"], "bulkembed: --config /no/such.toml: No such file"),
        (["--set", "engine.num_gpus=1", "--set", "ray.address=local"], "bulkembed: engine: 1 actors of 1 GPUs each do not fit"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(tmp_path: Path, qwen: str, change: list[str], message: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    result = in_process(*job(tmp_path, qwen, *change))
    assert result.returncode == 2, result.stderr
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert not list(tmp_path.glob("out/data/*/*"))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["plan", "--limit"], "bulkembed: Option '--limit' requires an argument (see bulkembed --help)"),
        (["plan", "extra"], "bulkembed: Got unexpected extra argument(s) (extra) (see bulkembed plan --help)"),
        (["verfy"], "bulkembed: No such command 'verfy'. Did you mean 'verify'? (see bulkembed --help)"),
        (["search"], "bulkembed: Missing option '--query' (see bulkembed search --help)"),
        (["plan", "--set", "engine.step_tokens"], "bulkembed: --set: expected KEY=VALUE, as in --set engine.step_tokens=4096"),
    ],
)
def test_a_mistake_of_the_command_line_is_one_line_too(arguments: list[str], line: str) -> None:
    result = in_process(*arguments)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", f"{line}\n")


def test_a_mistake_is_one_line_of_a_process_too(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    result = bulkembed(*job(tmp_path, qwen, "--dims", "65"))
    assert (result.returncode, result.stdout, result.stderr.count("\n")) == (2, "", 1)
    assert result.stderr.startswith("bulkembed: dims: 65 is more than the 64")


@pytest.mark.usefixtures("ray_here")
def test_every_form_and_policy_by_flags(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    flags = ("--vectors", "64:float16,32:int8,16:binary", "--allow-untrained-dims", "--long-documents", "chunk", "--chunk-tokens", "32")
    result = in_process(*job(tmp_path, qwen, *flags, "--chunk-overlap", "4", "--instruction", "Find it"))
    assert result.returncode == 0, result.stderr
    assert "not trained for vectors of 16 dimensions" in result.stdout
    found = read_dataset(tmp_path / "out")
    assert found.column_names[:6] == ["id", "lang", "chunk_index", "char_start", "char_end", "document_hash"]
    assert found.column_names[6:9] == ["embedding", "embedding_32", "embedding_16"]
    assert f"chunked      {sum(index == 1 for index in found['chunk_index'].to_pylist())} documents" in result.stdout
    again = in_process("verify", "--output", tmp_path / "out", "--sample", "20", "--source", tmp_path / "in")
    assert again.returncode == 0, again.stderr
    hits = in_process("search", "--output", tmp_path / "out", "--query", "vector", "-k", "2", "--instruction", "Find it")
    assert hits.stdout.count("lang: xx") == 2


@pytest.mark.usefixtures("shared_ray")
def test_an_incomplete_run_names_what_failed_and_exits_1(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in")
    (tmp_path / "in" / "part-2.parquet").write_bytes(b"no parquet")
    result = bulkembed(*job(tmp_path, qwen))
    assert result.returncode == 1
    assert "part-2.parquet" in result.stderr
    assert "150 documents" in result.stdout
    assert "no snapshot" in result.stdout


@pytest.mark.usefixtures("ray_here")
def test_retry_rejects_embeds_them_after_a_fix(tmp_path: Path, qwen: str) -> None:
    (tmp_path / "in").mkdir()
    texts = ["@ @" if n == 7 else "" if n == 30 else "word" for n in range(40)]
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": text, "lang": "xx"} for n, text in enumerate(texts)])
    token = int(Tokenizer(f"{qwen}/tokenizer.json", 64, None).encode(["@ "]).of(0)[0])
    broken = in_process(*job(tmp_path, qwen, "--set", f"engine.args.nan_on={token}"))
    assert broken.returncode == 0, broken.stderr
    assert 7 not in read_dataset(tmp_path / "out")["id"].to_pylist()
    nothing = in_process("retry-rejects", *job(tmp_path, qwen, "--reason", "engine_lost")[1:])
    assert "no document of this dataset was rejected for such a reason" in nothing.stdout
    refused = in_process("retry-rejects", *job(tmp_path, qwen, "--run-key", "2026-11-27")[1:])
    assert refused.returncode == 2 and "--run-key" in refused.stderr
    (tmp_path / "run.toml").write_text('run_key = "2026-11-27"\n')
    fixed = in_process("retry-rejects", *job(tmp_path, qwen, "--reason", "bad_vector", "--config", tmp_path / "run.toml")[1:])
    assert fixed.returncode == 0, fixed.stderr
    assert [snapshot.run_key for snapshot in snapshots(Store(), str(tmp_path / "out"))] == [None, None], "the run of that name is to come"
    assert "  to do        embed 1 document, in 1 shard\n" in fixed.stdout
    assert sorted(read_dataset(tmp_path / "out")["id"].to_pylist()) == [n for n in range(40) if n != 30]
    assert "snapshot 2: 39 documents" in fixed.stdout
    assert in_process("verify", "--output", tmp_path / "out").returncode == 0


@pytest.mark.usefixtures("ray_here")
@pytest.mark.parametrize(("most", "code"), [("0.5", 0), ("30", 0), ("0.1", 1), ("10", 1)])
def test_max_rejects_stops_a_run_that_eats_a_broken_corpus(tmp_path: Path, qwen: str, most: str, code: int) -> None:
    (tmp_path / "in").mkdir()
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": n, "text": "" if n % 4 == 0 else "word", "lang": "xx"} for n in range(100)])
    result = in_process(*job(tmp_path, qwen, "--set", f"max_rejects={most}"))
    assert result.returncode == code, result.stderr
    assert ("bulkembed: max_rejects: " in result.stderr) == (code == 1)


@pytest.mark.ray
def test_source_and_output_on_s3(tmp_path: Path, qwen: str, s3: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials and endpoint from the environment, as on any AWS host."""
    rows = write_corpus(tmp_path / "in")
    store, root = Store(s3), f"s3://corpus/cli-{tmp_path.name}"
    for path in (tmp_path / "in").iterdir():
        store.put(f"{root}/in/{path.name}", path.read_bytes())
    environment = {"AWS_ACCESS_KEY_ID": s3["key"], "AWS_SECRET_ACCESS_KEY": s3["secret"], "AWS_ENDPOINT_URL": s3["endpoint_url"]}
    arguments = job(tmp_path, qwen, "--source", f"{root}/in/*", "--output", f"{root}-out")
    result = bulkembed(*arguments, **environment)
    assert result.returncode == 0, result.stderr
    assert "planted-secret" not in result.stdout + result.stderr
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert in_process("verify", "--output", f"{root}-out").returncode == 0
    assert read_dataset(f"{root}-out", **s3)["id"].to_pylist() == [row["id"] for row in rows]
    refused = in_process("run", "--source", "s3://no-such-bucket/x", "--output", f"{root}-x", "--model", qwen)
    assert refused.returncode == 2
    assert "s3://no-such-bucket/x" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_nothing_is_finished_yet(tmp_path: Path) -> None:
    for command in (["verify"], ["files"], ["search", "--query", "x"]):
        result = in_process(*command, "--output", tmp_path)
        assert result.returncode == 2
        assert "no finished dataset" in result.stderr


@pytest.mark.parametrize(
    ("setting", "wanted"),
    [
        ("a.b=1", {"a": {"b": 1}}),
        ("a=x", {"a": "x"}),
        ("a=true", {"a": True}),
        ('a="1"', {"a": "1"}),
        ("a=[1, 2]", {"a": [1, 2]}),
        (r"a=C:\x", {"a": r"C:\x"}),
    ],
)
def test_settings(setting: str, wanted: dict[str, Any]) -> None:
    assert parse_setting(setting) == wanted


@given(st.text(st.characters(codec="ascii", exclude_categories=["Cc"])))
def test_any_text_is_a_setting_or_a_clear_error(value: str) -> None:
    from bulkembed.errors import ConfigError

    try:
        found = parse_setting(f"a={value}")
    except ConfigError:
        return
    assert "a" in found


def test_receipts_are_plain_json(tmp_path: Path, qwen: str) -> None:
    write_corpus(tmp_path / "in", files=1)
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
    ledger, _ = newest_dataset(Store(), str(tmp_path / "out"))
    receipt = json.loads(Path(ledger.receipt_uri(live_names(tmp_path / "out")[0])).read_text())
    assert receipt["rows"] == receipt["documents"] + receipt["rejects"] == 20
    assert set(receipt["seconds"]) == {"read", "tokenize", "embed", "encode", "write"}


@pytest.mark.parametrize("command", ["plan", "status", "files", "help", "help of a command"])
def test_standard_output_that_cannot_be_written_is_one_line(command: str, tmp_path: Path, qwen: str) -> None:
    if "help" in command:
        arguments = ["-h"] if command == "help" else ["verify", "--help"]
    else:
        write_corpus(tmp_path / "in", files=1)
        in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen))
        more = ["--source", str(tmp_path / "in"), "--model", qwen] if command == "plan" else []
        arguments = [command, "--output", str(tmp_path / "out"), *more]
    words = [sys.executable, "-m", "bulkembed", *arguments]
    reader, unread = os.pipe()
    os.close(reader)
    with open("/dev/full", "w") as full, os.fdopen(unread, "w") as broken:  # noqa: PTH123
        for stream, reason in ((full, "No space left on device"), (broken, "")):
            result = subprocess.run(words, cwd=ROOT, stdout=stream, stderr=subprocess.PIPE, text=True, check=False)
            assert result.returncode == 1
            assert result.stderr.startswith(f"bulkembed: standard output cannot be written: {reason}")
            assert result.stderr.count("\n") == 1


def test_a_name_between_colons_is_shown_as_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    console.out.print("s3://corpus/:dog:/x", markup=False)
    console.err.print("s3://corpus/:dog:/x", markup=False)
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("s3://corpus/:dog:/x\n", "s3://corpus/:dog:/x\n")


@pytest.mark.parametrize("key", ["a\\nb", "a\\u001b[2Jb", "a\\u202eb"])
def test_an_error_is_one_line_whatever_a_name_holds(tmp_path: Path, key: str, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "run.toml").write_text(f'"{key}" = 1\n', encoding="utf-8")
    with pytest.raises(SystemExit) as leaving:
        main(["plan", "--config", str(tmp_path / "run.toml")])
    assert leaving.value.code == 2
    printed = capsys.readouterr().err
    assert printed.rstrip("\n").isprintable()
    assert "unknown key" in printed


def test_snapshots_are_shown_switched_and_gone_back_to(tmp_path: Path, qwen: str, capsys: pytest.CaptureFixture[str]) -> None:
    from bulkembed.cli.app import app

    def printed(*arguments: object) -> str:
        app([*map(str, arguments), "--output", f"{tmp_path}/out"], standalone_mode=False)
        return capsys.readouterr().out

    assert printed("snapshots") == f"{tmp_path}/out: no run has finished here\n"
    write_corpus(tmp_path / "in", files=1)
    cfg = simulated(tmp_path / "in", tmp_path / "out", qwen)
    in_one_process(cfg)
    in_one_process(cfg.model_copy(update={"limit": 7}))
    in_one_process(simulated(tmp_path / "in", tmp_path / "out", qwen, prompt="x: "))
    _, *rows = printed("snapshots").splitlines()
    assert ["current" in row for row in rows] == [True, False, False]
    assert rows[1].endswith("trial of 7 rows")
    assert printed("publish", "--snapshot", 3) == "current: snapshot 3: 50 documents\n"
    assert "snapshot 3: " in printed("verify")
    assert printed("rollback", "--to", 1) == "current: snapshot 1: 50 documents\n"
    assert printed("files", "--snapshot", 3) != printed("files") == printed("files", "--snapshot", 1)
    assert "snapshot 3: " in printed("verify", "--snapshot", 3)
    assert printed("search", "--query", "shard", "-k", 1, "--snapshot", 3).count("\n") >= 1
    assert "not current" in printed("status")


def test_no_log_line_brings_a_terminal_sequence() -> None:
    record = logging.makeLogRecord({"msg": "reading %s again", "args": ("\x1b[2J\u202ea.jsonl",)})
    assert console.HidingFormatter("%(message)s").format(record) == r"reading \x1b[2J\u202ea.jsonl again"


def test_no_document_or_name_makes_a_line_of_its_own(tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    here(monkeypatch)
    (tmp_path / "in").mkdir()
    forged = "\n1.000  trusted\u2028\u200f\u061cno"
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": f"id{forged}", "text": "shard", "lang": forged}])
    for name in (f"b{forged}.pdf", f".c{forged}.jsonl"):
        (tmp_path / "in" / name).touch()
    (tmp_path / "in" / f"d{forged}.jsonl").write_bytes(b"broken")
    for command in (job(tmp_path, qwen), ["search", "--output", tmp_path / "out", "--query", "shard", "-k", "1"]):
        printed = in_process(*command)
        assert "trusted" in printed.stdout
        assert not [line for line in (printed.stdout + printed.stderr).split("\n") if line.startswith("1.000")]
        assert not re.search("[\u2028\u200f\u061c]", printed.stdout + printed.stderr)


def test_no_document_or_name_reaches_the_terminal_with_its_escape_sequences(
    tmp_path: Path, qwen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    here(monkeypatch)
    (tmp_path / "in").mkdir()
    spoiled = "\x1b[2J\x9b31m\u202egnp.exe\x07\rno"
    write_jsonl(tmp_path / "in" / "a.jsonl", [{"id": f"id{spoiled}", "text": "shard", "lang": spoiled}])
    (tmp_path / "in" / f"b{spoiled}.pdf").touch()
    ran = in_process(*job(tmp_path, qwen))
    found = in_process("search", "--output", tmp_path / "out", "--query", "shard", "-k", "1")
    for result in (ran, found):
        assert result.returncode == 0, result.stderr
        assert re.sub(r"[ -~\n]", "", result.stdout + result.stderr) == ""
    assert found.stdout.splitlines()[0].endswith(r"id\x1b[2J\x9b31m\u202egnp.exe\x07\rno")
