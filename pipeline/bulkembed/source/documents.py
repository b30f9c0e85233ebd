"""The columns of rows -> the documents among them, and a reject with a reason for each other row. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, repeat
from types import NoneType
from typing import Any

import numpy as np
import pyarrow as pa

from bulkembed import schema
from bulkembed.config.recipe import Recipe
from bulkembed.config.template import template_pieces
from bulkembed.records import Documents, LongDocuments, Reasons
from bulkembed.source.row_columns import RowColumns

ChunkEnds = dict[int, tuple[int, ...]]  # see records.Documents
LIST_POLICIES = ("chunk", "mean")
LIST_HINT = 'long_documents = "chunk" makes a row of each string'
Pieces = Sequence[tuple[str, int | None]]  # of a template: a literal, and the number of the text column behind it


class Unusable(Exception):
    """Why a document cannot be embedded: (reason, detail)."""


def split_rows(columns: RowColumns, recipe: Recipe, carried: pa.Schema, uri: str, object_rows: Sequence[int]) -> Documents:
    """The documents and rejects of rows of one object, which count from 0. `object_rows`: where each lies in the object."""
    rows, reasons, key = columns.rows, rejected_rows(columns), recipe.vector_key
    texts, chunk_ends = compose_texts(columns.texts, template_pieces(key.template, key.text_columns), key.long_documents, reasons)
    numbers = np.delete(np.arange(rows.num_rows), list(reasons))
    accepted = rows.take(pa.array(numbers)) if reasons else rows
    rejected = sorted(reasons)
    rejects = schema.rejects_table(
        rows["id"].take(pa.array(rejected, pa.int64())),
        [(uri, object_rows[row]) for row in rejected],
        [reasons[row] for row in rejected],
        [None] * len(rejected),
    )
    return Documents(accepted.cast(carried), numbers, texts, rejects, repeats(accepted["id"]), chunk_ends)


def rejected_rows(columns: RowColumns) -> Reasons:
    """The rows that are rejects whatever their text is, and why."""
    missing = np.flatnonzero(columns.rows["id"].is_null().to_numpy()).tolist()
    return dict.fromkeys(missing, ("null_id", "")) | columns.reasons


def join_documents(parts: Sequence[Documents], starts: Sequence[int]) -> Documents:
    """Documents of several parts, at least one, in their order. `starts`: the row at which each part starts."""
    if len(parts) == 1:
        return parts[0]
    rows = pa.concat_tables([part.rows for part in parts])
    first_texts = [0, *accumulate(len(part.texts) for part in parts)]
    return Documents(
        rows,
        np.concatenate([start + part.numbers for start, part in zip(starts, parts, strict=False)]),
        [text for part in parts for text in part.texts],
        pa.concat_tables([part.rejects for part in parts]),
        repeats(rows["id"]),
        {start + index: ends for part, start in zip(parts, first_texts, strict=False) for index, ends in part.chunk_ends.items()},
    )


def repeats(ids: pa.ChunkedArray) -> int:
    """How many of these ids an earlier one is equal to."""
    return len(ids) - len(storage_values(ids).unique())


def storage_values(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """The column without its extension type. Arrow cannot find repeated values of types such as UUID."""
    if not isinstance(column.type, pa.BaseExtensionType):
        return column
    return pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)


def compose_texts(columns: Sequence[Sequence[Any]], pieces: Pieces, policy: LongDocuments, reasons: Reasons) -> tuple[list[str], ChunkEnds]:
    """The texts of the rows that have no reason to be rejects, and those among them that join a list of strings.

    Adds the reasons of rows whose text cannot be embedded. Rows of strings are composed all at once, which is five times faster than
    one by one."""
    if {kind for values in columns for kind in set(map(type, values))} <= {str, NoneType}:
        filled = [values if None not in values else [value or "" for value in values] for values in columns]
        texts = list(join_pieces(filled, pieces))
        wholes: Iterable[str] = map("".join, zip(*filled, strict=True)) if len(filled) > 1 else filled[0]
        doubtful = [row for row, whole in enumerate(wholes) if not whole or whole.isspace()]
    else:
        texts = [""] * len(columns[0])
        doubtful = list(range(len(texts)))
    ends: ChunkEnds = {}
    for row in doubtful:
        if row in reasons:
            continue
        try:
            strings = compose([values[row] for values in columns], pieces, policy)
        except Unusable as problem:
            reasons[row] = problem.args
            continue
        texts[row] = "".join(strings)
        if len(strings) > 1:
            ends[row] = tuple(accumulate(map(len, strings)))
    if not reasons:
        return texts, ends
    left = [row for row in range(len(texts)) if row not in reasons]
    return [texts[row] for row in left], {index: ends[row] for index, row in enumerate(left) if row in ends}


def join_pieces(columns: Sequence[Sequence[str]], pieces: Pieces) -> Iterator[str]:
    """The text of each row: the literals of the template, with the values of the row between them."""
    streams: list[Iterable[str]] = []
    for literal, column in pieces:
        streams += [repeat(literal)] if literal else []
        streams += [columns[column]] if column is not None else []
    return map("".join, zip(*streams, strict=False)) if len(streams) > 1 else iter(*streams)


def compose(values: Sequence[Any], pieces: Pieces, policy: LongDocuments) -> list[str]:
    """One document from its text columns: its text, or a text for each string of a list. Raises Unusable."""
    lists = [column for column, value in enumerate(values) if isinstance(value, list)]
    if not lists:
        parts = [as_text(value) for value in values]
        require_text(parts)
        return [composed(parts, pieces)]
    if policy not in LIST_POLICIES or len(lists) > 1:
        detail = "several text columns hold lists" if policy in LIST_POLICIES else f"a list; {LIST_HINT}"
        raise Unusable("not_text", f"{detail}: {values[lists[0]]!r}"[:200])
    strings = [as_text(item) for item in values[lists[0]]]
    require_text(strings or [""])
    parts = [None if column == lists[0] else as_text(value) for column, value in enumerate(values)]
    texts = []
    for text in strings:
        if text and not text.isspace():
            parts[lists[0]] = text
            texts.append(composed(parts, pieces))
    return texts


def require_text(parts: Sequence[str | None]) -> None:
    """Raises Unusable where no part has anything but white space."""
    whole = "".join([part for part in parts if part])
    if not whole or whole.isspace():
        raise Unusable("empty_text" if any(part is not None for part in parts) else "null_text", "")


def composed(parts: Sequence[str | None], pieces: Pieces) -> str:
    return "".join([literal if column is None else literal + (parts[column] or "") for literal, column in pieces])


def as_text(value: Any) -> str | None:
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, bytes):
        try:
            return value.decode("utf-8")
        except UnicodeDecodeError as error:
            raise Unusable("undecodable", f"byte {error.start} is not UTF-8") from None
    raise Unusable("not_text", f"{type(value).__name__}: {value!r}"[:200])
