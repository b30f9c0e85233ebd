"""What somebody is told who got a key or a value wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bulkembed.config.error_lines import nearest_keys
from bulkembed.config.settings import join_settings
from bulkembed.config.toml_files import load
from bulkembed.errors import ConfigError

GIVEN = {"source": "in", "output": "out", "model": "m"}


def line_of(values: dict[str, Any]) -> str:
    with pytest.raises(ConfigError) as caught:
        load(None, GIVEN | values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"keep_column": ["a"]}, "keep_column: unknown key; did you mean keep_columns?"),
        ({"keep-columns": ["a"]}, "keep-columns: unknown key; did you mean keep_columns?"),
        ({"Model": "x"}, "Model: unknown key; did you mean model?"),
        ({"dim": 3}, "dim: unknown key; did you mean dims?"),
        ({"engine": {"step_token": 1}}, "engine.step_token: unknown key; did you mean engine.step_tokens?"),
        ({"engine": {"step-tokens": 1}}, "engine.step-tokens: unknown key; did you mean engine.step_tokens?"),
        ({"shard": {"max_rows": 1}}, "shard: unknown key; did you mean shards?"),
        ({"step_tokens": 4096}, "step_tokens: unknown key; did you mean engine.step_tokens?"),
        ({"step_token": 4096}, "step_token: unknown key; did you mean engine.step_tokens?"),
        ({"num_cpus": 4}, "num_cpus: unknown key; did you mean engine.num_cpus or ray.num_cpus?"),
        ({"ray": {"stall_seconds": 4}}, "ray.stall_seconds: unknown key; did you mean engine.stall_seconds?"),
        ({"engine": {"max_tokens": 4}}, "engine.max_tokens: unknown key; did you mean max_tokens, above the first [table]?"),
        ({"engine": {"shards": {}}}, "engine.shards: unknown key; did you mean shards, above the first [table]?"),
        ({"zzzzqq": 4}, "zzzzqq: unknown key"),
    ],
)
def test_an_unknown_key_is_answered_with_the_one_that_was_meant(values: dict[str, Any], line: str) -> None:
    assert line_of(values) == line


def test_a_mistyped_key_is_named_before_the_key_that_is_missing_for_it() -> None:
    with pytest.raises(ConfigError, match=r"^sorce: unknown key; did you mean source\?$"):
        load(None, {"sorce": "in", "output": "out", "model": "m"})


@pytest.mark.parametrize(
    ("values", "line"),
    [
        ({"max_tokens": "lots"}, "max_tokens: expected an integer, such as 8192 (got 'lots')"),
        ({"max_tokens": 1.5}, "max_tokens: expected an integer, such as 8192 (got 1.5)"),
        ({"limit": True}, "limit: expected an integer, such as 1000 (got True)"),
        ({"max_rejects": "few"}, "max_rejects: expected a number, such as 0.05 (got 'few')"),
        ({"dims": "a,b"}, "dims: expected a list of integers, such as [1024, 256] (got 'a,b')"),
        ({"dims": 256}, "dims: expected a list of integers, such as [1024, 256] (got 256)"),
        ({"dims": ["x"]}, "dims.0: expected a list of integers, such as [1024, 256] (got 'x')"),
        ({"vectors": 256}, "vectors: expected a list of DIM:DTYPE, such as 2560:float16,256:int8 (got 256)"),
        ({"vectors": "256"}, "vectors: '256' is not DIM:DTYPE with one of float32, float16, int8, binary, as in 256:int8 (got '256')"),
        ({"text_columns": "title"}, 'text_columns: expected a list of strings, such as ["title", "body"] (got \'title\')'),
        ({"id_column": ["id"]}, "id_column: expected a string, such as \"id\" (got ['id'])"),
        ({"revision": 1}, 'revision: expected a string, such as "main" (got 1)'),
        ({"allow_untrained_dims": "maybe"}, "allow_untrained_dims: expected true or false (got 'maybe')"),
        ({"long_documents": "split"}, "long_documents: expected one of truncate, chunk, mean, reject (got 'split')"),
        ({"column_types": "string"}, "column_types: expected a table, such as { id = \"string\" } (got 'string')"),
        ({"engine": "vllm"}, "engine: expected a table, such as [engine] (got 'vllm')"),
        ({"engine": {"replicas": 0}}, "engine.replicas: must be at least 1 (got 0)"),
        ({"engine": {"num_cpus": 0}}, "engine.num_cpus: must be more than 0 (got 0)"),
        ({"engine": {"env": {"A": 1}}}, "engine.env.A: expected a string"),
        ({"storage": "s3"}, 'storage: expected a table, such as { endpoint_url = "https://minio.internal:9000" }'),
    ],
)
def test_a_value_of_the_wrong_type_is_answered_with_an_example(values: dict[str, Any], line: str) -> None:
    assert line_of(values) == line


def test_a_setting_is_answered_like_the_key_of_a_file_and_not_repeated() -> None:
    for setting, line in (
        ("engine.step_token=hunter2", "engine.step_token: unknown key; did you mean engine.step_tokens?"),
        ("engine.step_tokens=hunter2", "engine.step_tokens: expected an integer, such as 8192"),
        ("shards={hunter2=1}", "shards: unknown key"),
        ('engine={kind="hunter2"}', "engine.kind: expected one of vllm, simulated"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(None, join_settings(dict(GIVEN), [setting]), [setting])
        assert str(caught.value) == line


@pytest.mark.parametrize("text", ["1024,256", " 1024, 256 ", "[1024, 256]"])
def test_dims_may_be_written_as_a_flag_takes_them(text: str) -> None:
    assert load(None, GIVEN | {"dims": text}).dims == (1024, 256)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[[engine]]\nstep_tokens = 64\n", "[[engine]] is a list of tables; write [engine] once"),
        ("[[shards]]\n[[shards]]\n", "[[shards]] is a list of tables; write [shards] once"),
        ('[[storage]]\nsecret = "hunter2"\n', "[[storage]] is a list of tables; write [storage] once"),
        ("[[engine.args]]\na = 1\n", "[[engine.args]] is a list of tables; write [engine.args] once"),
        ('storage = "hunter2"\n', "storage is no table; write [storage] once"),
    ],
)
def test_what_is_no_table_is_refused_before_a_setting_replaces_it(tmp_path: Path, content: str, problem: str) -> None:
    path = tmp_path / "run.toml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        load([path], GIVEN | {"engine": {"step_tokens": 65, "args": {}}, "shards": {"max_rows": 1}, "storage": {"anon": True}})
    assert str(caught.value).startswith(f"--config {path}: {problem}")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["max_length", "max_retries", "max_docs", "region", "precision", "batch_tokens", "ray.memory"])
def test_a_name_of_another_thing_is_not_taken_for_a_mistyped_key(name: str) -> None:
    assert nearest_keys(name) == []


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("model_name", ["model"]),
        ("outptu", ["output"]),
        ("modle", ["model"]),
        ("type", ["dtype"]),
        ("engine_kind", ["engine.kind"]),
        ("tokens", ["max_tokens", "chunk_tokens"]),
    ],
)
def test_a_key_is_known_by_its_words_and_letters(name: str, keys: list[str]) -> None:
    assert nearest_keys(name) == keys


def test_free_tables_have_no_unknown_keys() -> None:
    cfg = load(None, GIVEN | {"storage": {"endpoint": "x"}, "engine": {"env": {"A": "b"}, "args": {"an_argument_of_tomorrow": 1}}})
    assert cfg.storage == {"endpoint": "x"}
    assert nearest_keys("storage.endpoint") == []
