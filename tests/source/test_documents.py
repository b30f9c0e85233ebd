"""Texts that are composed all at once are those that are composed one by one."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bulkembed.config.template import canonical_template, template_pieces
from bulkembed.records import Reasons
from bulkembed.source.documents import Unusable, compose, compose_texts

TEXTS = st.one_of(st.none(), st.text(max_size=3), st.sampled_from(["", " ", "\t\n", "\x1c", "\u3000", "\u200b"]))
ANYTHING = st.one_of(TEXTS, st.integers(), st.binary(max_size=3), st.lists(st.integers(), max_size=1))


@pytest.mark.parametrize("values", [TEXTS, ANYTHING])
@given(st.data(), st.sampled_from(["{a}", "{b}{a}", "x {a}\n{b}: {a}", "{{{a}}}"]))
def test_texts_are_composed_as_one_by_one(values: st.SearchStrategy[Any], data: st.DataObject, template: str) -> None:
    names = [name for name in "ab" if f"{{{name}}}" in template]
    canonical, columns = canonical_template(template, names)
    pieces = template_pieces(canonical, columns)
    rows = data.draw(st.lists(st.tuples(*(values for _ in columns)), max_size=6))
    reasons: Reasons = {row: ("null_id", "") for row in data.draw(st.sets(st.integers(0, 5))) if row < len(rows)}
    texts, expected = [], dict(reasons)
    for number, row in enumerate(rows):
        if number not in reasons:
            try:
                texts.append(compose(row, pieces))
            except Unusable as problem:
                expected[number] = problem.args
    found = compose_texts([[row[column] for row in rows] for column in range(len(columns))], pieces, reasons)
    assert (found, reasons) == (texts, expected)
