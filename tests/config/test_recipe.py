"""What a configuration comes to with its model, and what of it is part of which identity."""

from __future__ import annotations

import string
from dataclasses import fields, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.config.keys import VECTOR_KEY, keys_of
from bulkembed.config.recipe import Recipe, RowSchema, VectorKey, forms_from
from bulkembed.config.run_config import RunConfig
from bulkembed.config.template import canonical_template, check_template, template_pieces
from bulkembed.errors import ConfigError
from tests.support.models import MODEL, recipe

GIVEN = {"source": "in", "output": "out", "model": "m"}
RANGES = {"int8_ranges.embedding": "AAAA", "int8_ranges_rows": "9"}


def made(**values: Any) -> Recipe:
    return recipe(RunConfig.model_validate(GIVEN | values))


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
        made(**values)


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
    assert made(**values).vector_key.prompt == prompt


def test_an_instruction_needs_a_model_that_takes_one() -> None:
    with pytest.raises(ConfigError, match="no query prompt of the form"):
        recipe(RunConfig.model_validate(GIVEN | {"instruction": "x"}), replace(MODEL, query_prompt="query: "))


def test_untrained_dims_can_be_insisted_on() -> None:
    forms = made(dims=[16], allow_untrained_dims=True).row_schema.vectors
    assert [str(form) for form in forms] == ["16:float32"]


def fingerprint(**values: Any) -> str:
    return made(**values).fingerprint


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
        {"template": "{text}"},
        {"engine": {"dtype": "float32"}},
        {"max_tokens": 512},
        {"prompt": ""},
    ],
)
def test_nothing_else_does(change: dict[str, Any]) -> None:
    assert fingerprint(**change) == fingerprint()


OTHER_ROWS: list[dict[str, Any]] = [
    {"keep_columns": ["a"]},
    {"id_column": "a"},
    {"dims": [32]},
    {"dtype": "float16"},
    {"vectors": "64:float32,64:int8"},
    {"column_types": {"id": "string"}},
]
OTHER_VECTORS: list[dict[str, Any]] = [
    {"max_tokens": 100},
    {"prompt": "x"},
    {"text_columns": ["a"]},
    {"template": "{text}!"},
    {"engine": {"kind": "simulated"}},
    {"engine": {"dtype": "float16"}},
    {"engine": {"args": {"quantization": "fp8"}}},
    {"engine": {"args": {"hf_overrides": {"rope_theta": 5.0}}}},
    {"long_documents": "chunk"},
    {"long_documents": "mean", "chunk_tokens": 100},
    {"long_documents": "mean", "chunk_overlap": 10},
]


@pytest.mark.parametrize("change", OTHER_ROWS)
def test_other_rows_may_reuse_the_vectors(change: dict[str, Any]) -> None:
    assert made(**change).can_reuse_vectors(made())
    assert made(**change).vector_key.digest == made().vector_key.digest
    assert made(**change).row_schema != made().row_schema


@pytest.mark.parametrize("change", OTHER_VECTORS)
def test_other_vectors_may_not_be_reused(change: dict[str, Any]) -> None:
    assert not made(**change).can_reuse_vectors(made())
    assert made(**change).vector_key.digest != made().vector_key.digest
    assert made(**change).row_schema == made().row_schema


def test_another_model_makes_other_vectors() -> None:
    for model in (replace(MODEL, digest="another"), replace(MODEL, pooling="mean")):
        assert not recipe(RunConfig.model_validate(GIVEN), model).can_reuse_vectors(made())


def test_int8_ranges_change_the_fingerprint_and_no_vector() -> None:
    key = made(dtype="int8")
    measured = key.with_int8_ranges(RANGES)
    assert measured.fingerprint != key.fingerprint
    assert measured.can_reuse_vectors(key)
    assert measured.with_int8_ranges({}) == key


@pytest.mark.parametrize("change", [{}, *OTHER_ROWS, *OTHER_VECTORS, {"keep_columns": ["a,b", '"']}])
def test_a_recipe_comes_back_from_its_texts(change: dict[str, Any]) -> None:
    first = made(**change)
    if first.row_schema.has_int8:
        first = first.with_int8_ranges(RANGES)
    footer = first.texts | dict(first.row_schema.int8_ranges) | {"bulkembed": "0.1", "engine": "vllm"}
    assert Recipe.from_texts(footer) == first
    assert Recipe.from_texts(footer).fingerprint == first.fingerprint


@pytest.mark.parametrize("damage", [{"max_tokens": "many"}, {"vectors": "64"}, {"text_columns": "text"}, {"pooling": "max"}])
def test_texts_of_another_shape_are_no_recipe(damage: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="not a recipe of this version"):
        Recipe.from_texts(made().texts | damage)
    with pytest.raises(ValueError, match="not a recipe of this version"):
        Recipe.from_texts({name: text for name, text in made().texts.items() if name not in damage})


def test_nothing_of_a_recipe_is_optional() -> None:
    for half in (VectorKey, RowSchema):
        assert not [field.name for field in fields(half) if "None" in str(field.type)]


def test_a_key_of_the_configuration_says_which_half_it_is_part_of() -> None:
    """Where a key keeps its name, the half that its description names is the one it is in."""
    halves = {field.name: half for half in (VectorKey, RowSchema) for field in fields(half)}
    for key in keys_of(RunConfig):
        name = key.name.replace("engine.", "engine_")
        if name in halves:
            assert key.identity is not None, key.name
            assert (key.identity is VECTOR_KEY) == (halves[name] is VectorKey), key.name


def test_arguments_of_an_engine_come_back_and_those_of_another_do_not() -> None:
    key = made(engine={"args": {"quantization": "fp8", "max_num_seqs": 7}}).vector_key
    assert key.engine("vllm").args == {"quantization": "fp8"}
    assert key.engine("simulated").args == {}


def test_another_engine_is_another_vector_key() -> None:
    cfg = RunConfig.model_validate(GIVEN | {"engine": {"dtype": "float16", "args": {"quantization": "fp8"}}})
    assert made().with_engine(cfg.engine) == recipe(cfg)
    assert made(engine={"dtype": "bfloat16"}).with_engine(made().vector_key.engine("vllm").model_copy(update={"dtype": "auto"})) == made(
        engine={"dtype": "bfloat16"}
    )


def test_the_order_of_text_columns_is_that_of_the_template() -> None:
    forwards = made(text_columns=["a", "b"], template="{b}-{a}")
    assert forwards == made(text_columns=["b", "a"], template="{b}-{a}")
    assert forwards.vector_key.text_columns == ("b", "a")


@given(st.lists(st.text(string.ascii_letters + "{}: \n", max_size=5), min_size=2, max_size=4), st.lists(st.sampled_from("ab"), min_size=1))
def test_the_canonical_template_joins_the_same_text(literals: list[str], names: list[str]) -> None:
    columns = tuple(dict.fromkeys(names))
    escaped = [literal.replace("{", "{{").replace("}", "}}") for literal in literals]
    template = "".join(f"{literal}{{{name}}}" for literal, name in zip(escaped * len(names), names, strict=False)) + escaped[-1]
    check_template(template, columns)
    text, order = canonical_template(template, columns)
    assert canonical_template(text, order) == (text, order)
    values = {name: f"<{name}>" for name in columns}
    joined = "".join(literal + ("" if column is None else values[order[column]]) for literal, column in template_pieces(text, order))
    assert joined == template.format(**values)


@pytest.mark.parametrize("name", ["text", "a.b", "{x}", "a}b", "a:b", "0", "a!r"])
def test_a_lone_text_column_may_have_any_name(name: str) -> None:
    key = made(text_columns=[name]).vector_key
    assert template_pieces(key.template, key.text_columns) == [("", 0)]


@pytest.mark.parametrize(
    ("old", "new", "derive", "known"),
    [
        ("64:float32,32:int8", "32:int8,64:float32", False, {"embedding": "embedding_32", "embedding_64": "embedding"}),
        ("64:float32", "32:float32,64:float32", False, {"embedding_64": "embedding"}),
        ("64:float32", "32:float32,64:binary", True, {"embedding": "embedding", "embedding_64": "embedding"}),
        ("64:float16,48:float32", "32:int8,64:float32", True, {"embedding": "embedding_48"}),
        ("64:int8", "32:int8,64:binary", True, {}),
    ],
)
def test_which_stored_column_gives_a_vector_column(old: str, new: str, derive: bool, known: dict[str, str]) -> None:
    before, after = made(vectors=old), made(vectors=new)
    assert forms_from(before, after, derive) == known
    assert after.derivable_from(before, derive) == (len(known) == 2)
    assert not after.derivable_from(made(vectors=old, prompt="x"), derive)


def test_an_int8_column_is_carried_only_under_the_same_ranges() -> None:
    one = made(vectors="64:int8").with_int8_ranges({"int8_ranges.embedding": "AAAA"})
    assert one.derivable_from(one, derive=False)
    assert not one.derivable_from(one.with_int8_ranges({"int8_ranges.embedding": "BBBB"}), derive=True)
