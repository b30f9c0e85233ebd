"""Texts that are composed all at once are those that are composed one by one."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.config.template import canonical_template, template_pieces
from bulkembed.records import LongDocuments, Reasons
from bulkembed.source.documents import Unusable, compose, compose_texts

POLICIES: tuple[LongDocuments, ...] = get_args(LongDocuments)
TEXTS = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["", " ", "\t\n", "\x1c", "\u3000", "\u200b"]))
ITEMS = st.one_of(TEXTS, st.integers(), st.binary(max_size=3))
ANYTHING = st.one_of(ITEMS, st.lists(ITEMS, max_size=4), st.lists(st.text(max_size=2), max_size=4))


@pytest.mark.parametrize("values", [TEXTS, ANYTHING])
@given(st.data(), st.sampled_from(["{a}", "{b}{a}", "x {a}\n{b}: {a}", "{{{a}}}"]), st.sampled_from(POLICIES))
def test_texts_are_composed_as_one_by_one(
    values: st.SearchStrategy[Any], data: st.DataObject, template: str, policy: LongDocuments
) -> None:
    names = [name for name in "ab" if f"{{{name}}}" in template]
    canonical, columns = canonical_template(template, names)
    pieces = template_pieces(canonical, columns)
    rows = data.draw(st.lists(st.tuples(*(values for _ in columns)), max_size=6))
    reasons: Reasons = {row: ("null_id", "") for row in data.draw(st.sets(st.integers(0, 5))) if row < len(rows)}
    expected: Reasons = dict(reasons)
    lists: list[list[str]] = []
    for number, row in enumerate(rows):
        if number not in reasons:
            try:
                lists.append(compose(row, pieces, policy))
            except Unusable as problem:
                expected[number] = problem.args
    texts, ends = compose_texts([[row[column] for row in rows] for column in range(len(columns))], pieces, policy, reasons)
    assert (texts, reasons) == (["".join(strings) for strings in lists], expected)
    assert [
        [text[start:stop] for start, stop in pairwise((0, *ends.get(number, (len(text),))))] for number, text in enumerate(texts)
    ] == lists
    assert all(len(lists[number]) > 1 for number in ends)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (["a", "b"], ["T: a", "T: b"]),
        (["a"], ["T: a"]),
        (["", "a", None, " \n", "b"], ["T: a", "T: b"]),  # what is no text is no chunk
        ([b"caf\xc3\xa9", "b"], ["T: caf\xe9", "T: b"]),
        ([], ("empty_text", "")),
        (["", " "], ("empty_text", "")),
        ([None, ""], ("empty_text", "")),
        ([None, None], ("null_text", "")),
        (["a", 7], ("not_text", "int: 7")),
        ([["a"]], ("not_text", "list: ['a']")),
        ([b"caf\xe9"], ("undecodable", "byte 3 is not UTF-8")),
    ],
)
@pytest.mark.parametrize("policy", ["chunk", "mean"])
def test_a_list_of_strings_gives_a_text_for_each(value: Any, expected: Any, policy: LongDocuments) -> None:
    pieces = template_pieces("{t}: {c}", ["t", "c"])
    if isinstance(expected, list):
        assert compose(["T", value], pieces, policy) == expected
        return
    with pytest.raises(Unusable) as problem:
        compose(["T", value], pieces, policy)
    assert problem.value.args == expected


def test_where_a_list_is_no_text() -> None:
    with pytest.raises(Unusable) as problem:
        compose([["a", "b"]], [("", 0)], "truncate")
    assert problem.value.args == ("not_text", "a list; long_documents = \"chunk\" makes a row of each string: ['a', 'b']")
    with pytest.raises(Unusable) as problem:
        compose([["a"], ["b"]], [("", 0), ("", 1)], "chunk")
    assert problem.value.args == ("not_text", "several text columns hold lists: ['a']")
