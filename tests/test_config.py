from pathlib import Path
from typing import Any

import pytest

from pipeline.config import RunConfig, load
from pipeline.errors import ConfigError
from pipeline.records import Model

MODEL = Model("m", None, "digest", 64, 512, 128, "last", "", "Query:", 32, "<e>")
GIVEN = {"source": "in", "output": "out", "model": "m"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sorce": "x"}, "sorce: unknown key"),
        ({"shards": {"max_rows": 0}}, "shards.max_rows: .*greater than or equal to 1"),
        ({"engine": {"kind": "tei"}}, "engine.kind: "),
        ({"dims": [64, 64]}, "dims: must be distinct"),
        ({"dims": [0]}, "dims: must be distinct positive"),
        ({"dtype": "int3"}, "dtype: "),
        ({"source": " "}, "source: must not be empty"),
        ({"text_columns": ["a", "b"]}, "template: needed"),
        ({"text_columns": ["a"], "template": "{b}"}, "template: its fields"),
        ({"text_columns": ["a"], "template": "{a"}, "template: "),
        ({"keep_columns": ["embedding"]}, "keep_columns: "),
        ({"keep_columns": ["id"]}, "keep_columns: "),
        ({"limit": 0}, "limit: "),
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
    path.write_text('source = "a"\noutput = "out"\nmodel = "m"\n[engine]\nstep_tokens = 64\ncall_tokens = 640\n')
    cfg = load(path, {"source": "b", "engine": {"step_tokens": 128}})
    assert (cfg.source, cfg.engine.step_tokens, cfg.engine.call_tokens) == ("b", 128, 640)


@pytest.mark.parametrize(("content", "message"), [(None, "No such file"), ("a = ", "not valid TOML")])
def test_an_unreadable_file_is_an_error(tmp_path: Path, content: str | None, message: str) -> None:
    path = tmp_path / "run.toml"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ConfigError, match=message):
        load(path, {})


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"dims": [65]}, "more than the 64"),
        ({"dims": [64, 16]}, "below the Matryoshka range 32"),
        ({"max_tokens": 513}, "more than the 512"),
    ],
)
def test_what_the_model_cannot_do_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RunConfig.model_validate(GIVEN | values).resolve(MODEL)


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
        {"engine": {"dtype": "float32"}},
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
        {"storage": {"key": "secret"}},
        {"dims": [64]},
        {"max_tokens": 512},
    ],
)
def test_nothing_else_does(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


def test_credentials_are_not_shown() -> None:
    assert "hunter2" not in repr(RunConfig.model_validate(GIVEN | {"storage": {"secret": "hunter2"}}))
