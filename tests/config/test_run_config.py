from datetime import date
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import load
from bulkembed.errors import ConfigError

GIVEN = {"source": "in", "output": "out", "model": "m"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sorce": "x"}, "sorce: unknown key"),
        ({"shards": {"max_rows": 0}}, "shards.max_rows: must be at least 1 \\(got 0\\)$"),
        ({"engine": {"kind": "tei"}}, "engine.kind: "),
        ({"engine": {"args": {"dtype": "float16"}}}, "engine: args: dtype is not taken here: give engine.dtype"),
        ({"engine": {"args": {"max_num_batched_tokens": 9}}}, "engine: args: .*: give engine.step_tokens"),
        ({"engine": {"args": {"pooler_config": {}}}}, "engine: args: pooler_config is not taken here: bulkembed sets it"),
        ({"engine": {"args": {"load_format": "pt"}}}, "engine: args: load_format is not taken"),
        ({"engine": {"args": {"hf_token": "hf_x"}}}, "engine: args: hf_token is not taken here: give HF_TOKEN in the environment$"),
        ({"engine": {"args": {"seed": 1 << 64}}}, "engine: args: seed holds what JSON does not"),
        ({"engine": {"args": {"hf_overrides": {"x": [float("inf")]}}}}, "engine: args: hf_overrides holds what JSON does not"),
        ({"engine": {"args": {"x": date(2026, 1, 1)}}}, "engine: args: x holds what JSON does not"),
        ({"dims": [64, 64]}, "dims: must be distinct"),
        ({"dims": [0]}, "dims: must be distinct positive"),
        ({"dtype": "int3"}, "dtype: "),
        ({"source": " "}, "source: must not be empty"),
        ({"text_columns": ["a", "b"]}, "template: needed"),
        ({"text_columns": ["a"], "template": "{b}"}, "template: its fields"),
        ({"text_columns": ["a"], "template": "{a"}, "template: "),
        ({"text_columns": ["a"], "template": "{a!r}"}, r"template: \{a!r\}: a field is the name of a text column and nothing else"),
        ({"text_columns": ["a"], "template": "{a:>20}"}, r"template: \{a:>20\}: a field"),
        ({"text_columns": ["a"], "template": "{a!s:{a}}"}, r"template: \{a!s:\{a\}\}: a field"),
        ({"text_columns": ["a"], "template": "{a.b}"}, r"template: \{a.b\}: a field"),
        ({"text_columns": ["a"], "template": "{a[0]}"}, r"template: \{a\[0\]\}: a field"),
        ({"text_columns": ["a"], "template": "{}"}, r"template: \{\}: a field"),
        ({"text_columns": ["a"], "template": "{0}"}, r"template: \{0\}: a field"),
        ({"text_columns": ["a", "a"], "template": "{a}"}, "text_columns: 'a' is named twice"),
        ({"keep_columns": ["embedding"]}, "keep_columns: "),
        ({"keep_columns": ["id"]}, "keep_columns: 'id' is the id column, which is always kept"),
        ({"keep_columns": ["id"], "id_column": "url"}, "keep_columns: 'id' would be the second .* holds 'url', the id column"),
        ({"keep_columns": ["a", "a"]}, "keep_columns: 'a' is named twice"),
        ({"limit": 0}, "limit: "),
        ({"vectors": "64"}, "vectors: '64' is not DIM:DTYPE"),
        ({"vectors": "64:int4"}, "vectors: '64:int4' is not DIM:DTYPE"),
        ({"vectors": "64:int8,64:int8"}, "vectors: name at least one form, and each only once"),
        ({"vectors": ["64:int8"], "dims": [64]}, "vectors: cannot be given together with dims or dtype"),
        ({"vectors": ["64:int8"], "dtype": "float16"}, "vectors: cannot be given together with dims or dtype"),
        ({"prompt": "a", "prompt_name": "query"}, "prompt: give only one"),
        ({"chunk_tokens": 32}, "chunk_tokens: .* need long_documents"),
        ({"long_documents": "chunk", "chunk_tokens": 32, "chunk_overlap": 17}, "chunk_overlap: must be at most half"),
        ({"long_documents": "split"}, "long_documents: "),
    ],
)
def test_a_mistake_is_one_line_that_names_the_field(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^{message}") as caught:
        load(None, GIVEN | values)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_named() -> None:
    with pytest.raises(ConfigError, match=r"^output: is required"):
        load(None, {"source": "in", "model": "m"})


def test_flags_override_the_file(tmp_path: Path) -> None:
    path = tmp_path / "run.toml"
    path.write_text('source = "/a"\noutput = "out"\nmodel = "m"\n[engine]\nstep_tokens = 64\ncall_tokens = 640\n')
    cfg = load([path], {"source": "/b", "engine": {"step_tokens": 128}})
    assert (cfg.source, cfg.engine.step_tokens, cfg.engine.call_tokens) == ("/b", 128, 640)


def test_later_files_override_earlier_ones_key_by_key(tmp_path: Path) -> None:
    first, second = tmp_path / "run.toml", tmp_path / "tuned.toml"
    first.write_text('source = "/a"\noutput = "out"\nmodel = "m"\n[engine]\nstep_tokens = 64\ncall_tokens = 640\n')
    second.write_text("limit = 9\n[engine]\nstep_tokens = 128\n")
    cfg = load([first, second], {})
    assert (cfg.source, cfg.limit, cfg.engine.step_tokens, cfg.engine.call_tokens) == ("/a", 9, 128, 640)
    assert load([second, first], {}).engine.step_tokens == 64


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), ("a = ", "not valid TOML")])
def test_an_unreadable_file_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load([path], {})


def test_credentials_are_not_shown() -> None:
    assert "hunter2" not in repr(RunConfig.model_validate(GIVEN | {"storage": {"secret": "hunter2"}}))


def test_an_error_of_the_constructor_repeats_no_input() -> None:
    with pytest.raises(ValidationError) as raised:
        RunConfig.model_validate(GIVEN | {"storage": "planted-secret", "engine": {"env": "planted-secret"}})
    assert "planted-secret" not in str(raised.value)


@pytest.mark.parametrize("values", [{"prompt": "a\udcff"}, {"id_column": "\udcff"}, {"keep_columns": ["a", "\udcff"]}])
def test_a_text_that_is_not_utf8_is_refused(values: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="holds bytes that are not UTF-8"):
        RunConfig.model_validate(GIVEN | values)
