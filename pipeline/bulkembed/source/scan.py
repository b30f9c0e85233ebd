"""A source object -> the keys of its documents, its rejects and its layout, by one reading from front to back.

The same functions decide here and when a shard is read whether a row is a document: see row_columns and documents. Memory holds the
keys of all rows, the rejects, and one batch of rows."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import row_keys, schema, stopping
from bulkembed.config.recipe import Recipe
from bulkembed.errors import ObjectError
from bulkembed.formats.known import FORMATS
from bulkembed.formats.rows import JsonRows, Rows
from bulkembed.records import Documents
from bulkembed.row_keys import Keys
from bulkembed.scans import Layout, Scan, ScanCounts, reasons_of
from bulkembed.source.columns import require_in_schema
from bulkembed.source.documents import split_rows
from bulkembed.source.every_column import refuse_unknown
from bulkembed.source.layout import undamaged
from bulkembed.source.objects import SourceObject
from bulkembed.source.place_columns import names_of_place, with_place_columns
from bulkembed.source.reader import require_unchanged
from bulkembed.source.row_columns import row_columns
from bulkembed.storage.store import Store


def scan_object(store: Store, item: SourceObject, recipe: Recipe, carried: pa.Schema) -> Scan:
    """Reads an object once. `carried`: the schema of the id and the kept columns in the output.

    Raises ObjectError where the object is corrupt, lacks the id or all texts, or changed since it was listed; WrongType where a column
    of a table does not fit."""

    def read() -> Scan:
        texts = recipe.vector_key.text_columns
        with FORMATS[item.format].reading(item.in_store(store), recipe.source_columns, texts) as reading:
            if reading.schema is not None:
                require_in_schema(recipe, item, reading.schema)
                refuse_unknown(reading.schema.names, recipe, item.uri)
            absent = absent_columns(reading.schema, item, recipe)
            found = scan_batches(reading.batches, item, recipe, carried)
            layout = reading.layout()
            if item.table and item.dead_rows and item.table.dead_rows[-1] >= layout.rows:
                raise ObjectError(f"{item.uri}: the table names deleted rows that the file does not have; restore the file or the table")
            return scan_of(layout, found, carried, item.dead_rows, absent)

    scan = undamaged(store, item, read)
    require_unchanged(store, item.uri, item.version)
    return scan


@dataclass
class Found:
    """What the batches of an object hold."""

    keys: list[Keys] = field(default_factory=list)
    rejects: list[pa.Table] = field(default_factory=list)
    rows: int = 0
    text_bytes: int = 0
    repaired: int = 0
    misfits: dict[str, str] = field(default_factory=dict)


def scan_batches(batches: Iterable[Rows], item: SourceObject, recipe: Recipe, carried: pa.Schema) -> Found:
    found = Found()
    for rows in batches:
        stopping.stop.check()
        object_rows = range(found.rows, found.rows + len(rows))
        named = with_place_columns(rows, item.relative_path, item.uri, recipe.row_schema, carried, object_rows)
        refuse_new_columns(named, recipe, item.uri)
        columns = row_columns(named, recipe, carried, item.uri, object_rows)
        documents = split_rows(columns, recipe, carried, item.uri, object_rows)
        live = is_live(documents.numbers + found.rows, item)
        found.keys.append(keys_of_documents(documents, recipe, found.rows).take(live))
        if documents.rejects.num_rows:
            found.rejects.append(documents.rejects.filter(pa.array(is_live(documents.rejects["row"].to_numpy(), item))))
        found.text_bytes += len("".join(compress(documents.texts, live.tolist())).encode())
        found.repaired += columns.repaired
        for name, (row, value) in columns.misfits.items():
            found.misfits.setdefault(name, f"row {object_rows[row]}: {value}")
        found.rows = object_rows.stop
    return found


def absent_columns(source: pa.Schema | None, item: SourceObject, recipe: Recipe) -> list[str]:
    """Columns of the run that a table lacks."""
    if source is None:
        return []
    present = {*source.names, *names_of_place(item.relative_path, recipe.row_schema)}
    return [name for name in recipe.source_columns if name not in present]


def refuse_new_columns(rows: Rows, recipe: Recipe, uri: str) -> None:
    """Raises ConfigError where all columns are kept, and rows of JSON have one that the run does not know."""
    if recipe.row_schema.keep == "all" and isinstance(rows, JsonRows):
        refuse_unknown(dict.fromkeys(name for row in rows.values for name in row), recipe, uri)


def is_live(rows: npt.NDArray[np.int64], item: SourceObject) -> npt.NDArray[np.bool_]:
    """(n,): whether each of these rows of an object is live. Tables delete rows without writing the object anew."""
    return ~np.isin(rows, item.table.dead_rows) if item.table else np.ones(len(rows), np.bool_)


def keys_of_documents(documents: Documents, recipe: Recipe, first_row: int) -> Keys:
    """The keys of documents. `first_row`: the row of the object at which their numbers begin."""
    return Keys(
        ids=row_keys.id_hashes(documents.rows["id"]),
        contents=row_keys.document_hashes(documents.texts, documents.chunk_ends),
        kept=row_keys.kept_hashes(documents.rows, recipe.row_schema.keep_columns),
        rows=documents.numbers + first_row,
        owners=np.zeros(len(documents.numbers), np.int32),
    )


def scan_of(layout: Layout, found: Found, carried: pa.Schema, dead_rows: int, absent: list[str]) -> Scan:
    """`dead_rows`: how many rows of the object the table has deleted; `absent`: columns that it lacks."""
    keys = Keys.concat(found.keys)
    rejects = pa.concat_tables([schema.empty_table(schema.rejects_schema(carried.field("id").type)), *found.rejects])
    total, reasons = len(keys) + rejects.num_rows, reasons_of(rejects)
    counts = ScanCounts(total, len(keys), rejects.num_rows, found.text_bytes, found.repaired, absent, reasons)
    if counts.rows + dead_rows != layout.rows:
        raise AssertionError(f"{counts.rows} live and {dead_rows} deleted rows were read, and the layout has {layout.rows}")
    return Scan(layout, keys, rejects, counts, found.misfits)
