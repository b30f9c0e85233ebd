from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from bulkembed.config.run_config import RunConfig
from bulkembed.config.toml_files import load
from bulkembed.errors import ConfigError
from tests.support.models import MODEL

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
        ({"vectors": ["64:int8"], "dims": [64]}, "vectors: says dims and dtypes itself"),
        ({"vectors": ["64:int8"], "dtype": "float16"}, "vectors: says dims and dtypes itself"),
        ({"prompt": "a", "prompt_name": "query"}, "prompt: give only one"),
        ({"chunk_tokens": 32}, "chunk_tokens: .* need long_documents"),
        ({"long_documents": "chunk", "chunk_tokens": 32, "chunk_overlap": 17}, "chunk_overlap: at most half"),
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


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dims": [65]}, "more than the 64"),
        ({"dims": [64, 16]}, "not trained for vectors of 16 dimensions, only for 32..64"),
        ({"max_tokens": 513}, "more than the 512"),
        ({"vectors": "36:binary"}, "multiple of 8"),
        ({"prompt_name": "passage"}, "has no prompt 'passage', only query, note"),
        ({"prompt": "Note: Note: "}, "twice"),
        ({"prompt_name": "note", "template": "Note: {text}"}, "'Note: ', a prompt of m's own, would stand before every document twice"),
        ({"prompt": "Note: ", "template": "Note:\n{text}"}, "twice"),
        ({"template": "Note: Note: {text}"}, "twice"),
        ({"long_documents": "chunk", "chunk_tokens": 400, "max_tokens": 300}, "more than max_tokens"),
    ],
)
def test_what_the_model_cannot_do_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.model_validate(GIVEN | values).resolve(MODEL)


@pytest.mark.parametrize(
    ("values", "prompt"),
    [
        ({}, ""),
        ({"prompt_name": "query"}, "Instruct: Find it\nQuery:"),
        ({"instruction": "Find code"}, "Instruct: Find code\nQuery:"),
        ({"prompt": "Title: "}, "Title: "),
        ({"prompt": "##"}, "##"),
        ({"prompt": "ha ha "}, "ha ha "),
        ({"prompt": "#", "template": "# {text}"}, "#"),
    ],
)
def test_the_prompt_of_the_documents(values: dict[str, Any], prompt: str) -> None:
    assert RunConfig.model_validate(GIVEN | values).resolve(MODEL).prompt == prompt


def test_an_instruction_needs_a_model_that_takes_one() -> None:
    with pytest.raises(ConfigError, match="no query prompt of the form"):
        RunConfig.model_validate(GIVEN | {"instruction": "x"}).resolve(replace(MODEL, query_prompt="query: "))


def test_untrained_dims_can_be_insisted_on() -> None:
    forms = RunConfig.model_validate(GIVEN | {"dims": [16], "allow_untrained_dims": True}).resolve(MODEL).vectors
    assert [str(form) for form in forms or ()] == ["16:float32"]


def test_what_is_remembered_makes_the_same_run() -> None:
    cfg = RunConfig.model_validate(GIVEN | {"vectors": "64:float16,32:int8", "long_documents": "mean", "prompt_name": "note"}).resolve(
        MODEL
    )
    again = RunConfig.model_validate(GIVEN | cfg.remembered()).resolve(MODEL)
    assert again.fingerprint(MODEL) == cfg.fingerprint(MODEL)


def test_arguments_that_change_vectors_come_back_with_the_run() -> None:
    given = {"engine": {"args": {"quantization": "fp8", "max_num_seqs": 7}}}
    cfg = RunConfig.model_validate(GIVEN | given).resolve(MODEL)
    again = RunConfig.model_validate(GIVEN | cfg.remembered()).resolve(MODEL)
    assert again.engine.args == {"quantization": "fp8"}
    assert again.fingerprint(MODEL) == cfg.fingerprint(MODEL)


def fingerprint(**values: Any) -> str:
    return RunConfig.model_validate(GIVEN | values).resolve(MODEL).fingerprint(MODEL)


@pytest.mark.parametrize(
    "change",
    [
        {"dims": [32]},
        {"dtype": "float16"},
        {"max_tokens": 100},
        {"prompt": "x"},
        {"keep_columns": ["a"]},
        {"id_column": "a"},
        {"text_columns": ["a"]},
        {"template": "{text}!"},
        {"engine": {"kind": "simulated"}},
        {"long_documents": "chunk"},
        {"long_documents": "mean", "chunk_tokens": 100},
        {"vectors": "64:float32,64:int8"},
        {"prompt_name": "query"},
        {"engine": {"dtype": "float16"}},
        {"engine": {"args": {"quantization": "fp8"}}},
        {"engine": {"args": {"hf_overrides": {"rope_theta": 5.0}}}},
        {"engine": {"args": {"model_impl": "transformers"}}},
        {"engine": {"args": {"an_argument_of_tomorrow": 1}}},
    ],
)
def test_what_changes_a_vector_or_a_row_changes_the_fingerprint(change: dict[str, Any]) -> None:
    assert fingerprint(**change) != fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"source": "elsewhere"},
        {"output": "elsewhere"},
        {"shards": {"max_rows": 1}},
        {"ray": {"num_cpus": 3}},
        {"limit": 3},
        {"engine": {"step_tokens": 99, "replicas": 7}},
        {"engine": {"args": {"max_num_seqs": 512, "enforce_eager": True, "gpu_memory_utilization": 0.5}}},
        {"storage": {"key": "secret"}},
        {"dims": [64]},
        {"vectors": "64:float32"},
        {"max_tokens": 512},
        {"prompt": ""},
    ],
)
def test_nothing_else_does(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


def test_credentials_are_not_shown() -> None:
    assert "hunter2" not in repr(RunConfig.model_validate(GIVEN | {"storage": {"secret": "hunter2"}}))
