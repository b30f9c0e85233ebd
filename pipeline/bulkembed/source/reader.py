"""A shard -> its documents and rejects; parts -> the id and the kept columns of their rows.

Rows that cannot be embedded become rejects, each with a reason:

null_text      every text column is null or absent
empty_text     nothing but white space, or nothing that has a token (see stages)
not_text       a text column holds a number, a list, ...
undecodable    bytes that are not UTF-8
not_json       a line of JSON lines that is no JSON object
not_csv        a row of CSV with more or fewer cells than the header
line_too_long  a line of more than MAX_LINE_BYTES
null_id        the id is null or absent
wrong_type     an id or kept column that does not fit the type of the run
too_long       more tokens than the limit, where the run rejects long documents (see stages)
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pyarrow as pa

from bulkembed import schema
from bulkembed.config.recipe import Recipe
from bulkembed.errors import ObjectError
from bulkembed.formats.known import FORMATS
from bulkembed.records import Documents
from bulkembed.shards import Part, Shard
from bulkembed.source.documents import join_documents, rejected_rows, split_rows
from bulkembed.source.place_columns import with_place_columns
from bulkembed.source.row_columns import RowColumns, nullable_schema, row_columns
from bulkembed.storage.faults import CORRUPT, describe_error
from bulkembed.storage.store import Store

PART_THREADS = 8  # objects of a shard that are read side by side: the threads wait for the store most of the time


def read_documents(store: Store, shard: Shard, recipe: Recipe, carried: pa.Schema) -> Documents:
    """The documents of a shard. `carried` is the schema of the id and the kept columns in the output.

    Raises ObjectError where one of its objects is corrupt, lacks a column, or changed since it was planned."""
    row_bytes = shard.text_bytes / max(1, shard.rows)

    def documents_of(part: Part) -> Documents:
        columns = read_part(store, part, recipe, carried, row_bytes)
        return split_rows(columns, recipe, carried, part.uri, part.object_rows)

    with ThreadPoolExecutor(PART_THREADS) as pool:
        return join_documents(list(pool.map(documents_of, shard.parts)), shard.starts)


def read_carried(store: Store, parts: Sequence[Part], recipe: Recipe, carried: pa.Schema) -> pa.Table:
    """Id and kept columns of documents, in the order of the parts. It reads no text column of a Parquet object.

    Raises what `read_documents` does, and ObjectError where a row has no id or a value that does not fit."""
    without_texts = replace(recipe, vector_key=replace(recipe.vector_key, text_columns=()))

    def rows_of_part(part: Part) -> pa.Table:
        columns = read_part(store, part, without_texts, carried, 0)
        rejected = rejected_rows(columns)
        if rejected:
            row, reason = min(rejected.items())
            detail = ": ".join(filter(None, reason))
            raise ObjectError(f"{part.uri}: row {part.object_rows[row]} was planned as a document, but is none: {detail}; run again")
        return columns.rows

    with ThreadPoolExecutor(PART_THREADS) as pool:
        tables = list(pool.map(rows_of_part, parts))
    return pa.concat_tables([schema.empty_table(nullable_schema(carried)), *tables]).cast(carried)


def read_part(store: Store, part: Part, recipe: Recipe, carried: pa.Schema, row_bytes: float) -> RowColumns:
    """The columns of a part. `row_bytes`: the estimated size of the text of a row; 0 where it is unknown."""

    def attempt() -> RowColumns:
        rows = FORMATS[part.format].rows(store, part, recipe.source_columns, row_bytes)
        rows = with_place_columns(rows, part.path, part.uri, recipe.row_schema, carried, part.object_rows)
        return row_columns(rows, recipe, carried, part.uri, part.object_rows)

    try:
        columns = store.retrying(attempt, f"reading {part.uri}")
    except CORRUPT as error:
        raise ObjectError(f"{part.uri}: rows {part.start}-{part.stop} are unreadable: {describe_error(error)}") from error
    require_unchanged(store, part.uri, part.version)
    if columns.rows.num_rows != part.rows:
        raise ObjectError(f"{part.uri}: {columns.rows.num_rows} rows where {part.rows} were planned; run again to plan it anew")
    return columns


def require_unchanged(store: Store, uri: str, version: str) -> None:
    """Raises ObjectError where the object has changed since it was opened. What was read may then be a mixture."""
    try:
        current = store.version(uri)
    except FileNotFoundError:
        current = "gone"
    if current != version:
        raise store.changed(uri)
