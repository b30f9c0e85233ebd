"""Every key says what it is, what it holds where it is not given, and whether it changes the dataset."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from typing import Any

import pytest

from bulkembed.config.error_lines import KEYS
from bulkembed.config.keys import ROW_SCHEMA, VECTOR_KEY, Identity, toml
from bulkembed.config.recipe import RowSchema, VectorKey
from bulkembed.config.run_config import RunConfig

GIVEN = {"source": "in", "output": "out", "model": "m"}
NEEDED: dict[str, dict[str, Any]] = {  # beside the example of a key
    "text_columns": {"template": "{title}{body}"},
    "template": {"text_columns": ["title", "body"]},
    "chunk_tokens": {"long_documents": "mean"},
    "chunk_overlap": {"long_documents": "mean"},
}


@pytest.mark.parametrize("name", KEYS)
def test_a_key_is_described(name: str) -> None:
    key = KEYS[name]
    assert key.description[0].isupper()
    assert key.description.endswith(".")
    assert key.default not in ("None", "{}", "()", ""), "a default that is worked out needs a DefaultText"
    assert (key.default is None) == (name in GIVEN)


@pytest.mark.parametrize("name", KEYS)
def test_the_example_of_a_key_is_right(name: str) -> None:
    example = tomllib.loads(f"{name} = {KEYS[name].example_text}")
    RunConfig.model_validate(GIVEN | NEEDED.get(name, {}) | example)


# The keys that a field of a recipe is resolved from, where its name is not the key's own.
RESOLVED_FROM = {
    "model_digest": {"model", "revision"},
    "pooling": {"model"},
    "prompt": {"prompt", "prompt_name", "instruction"},
    "engine_kind": {"engine.kind"},
    "engine_dtype": {"engine.dtype"},
    "engine_args": {"engine.args"},
    "vectors": {"vectors", "dims", "dtype"},
    "keep": {"keep_columns"},
    "int8_ranges": set[str](),  # measured
}


@pytest.mark.parametrize(("half", "identity"), [(VectorKey, VECTOR_KEY), (RowSchema, ROW_SCHEMA)])
def test_a_key_is_part_of_a_datasets_identity_where_a_recipe_has_it(half: type[VectorKey | RowSchema], identity: Identity) -> None:
    resolved_from = set[str]().union(*(RESOLVED_FROM.get(field.name, {field.name}) for field in fields(half)))
    assert {name for name, key in KEYS.items() if key.identity is identity} == resolved_from


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (True, "true"),
        (8192, "8192"),
        (0.5, "0.5"),
        ('a "b"\n\\', '"a \\"b\\"\\n\\\\"'),
        (["a", "b"], '["a", "b"]'),
        ({"a": 1, "b": "c"}, '{ a = 1, b = "c" }'),
    ],
)
def test_a_value_is_written_as_toml_reads_it(value: object, text: str) -> None:
    assert toml(value) == text
    assert tomllib.loads(f"x = {text}") == {"x": value}
