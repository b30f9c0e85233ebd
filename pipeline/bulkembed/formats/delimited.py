"""CSV and TSV with a header row. Every value is text, and an empty cell is null.

Python's csv module reads the records. It takes lines one by one, so the byte offset of each record is known."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache, partial
from operator import not_

import pyarrow as pa

from bulkembed.errors import ObjectError
from bulkembed.formats.format import Format, ObjectVersion, Reading, reading_of, require_names
from bulkembed.formats.rows import TextRows
from bulkembed.formats.text_lines import MAX_LINE_BYTES, RowIndex, TextFile, batches_of, open_text, part_records, require_text
from bulkembed.records import Reasons
from bulkembed.scans import Layout
from bulkembed.shards import Part
from bulkembed.storage.store import Store

COMMA, TAB = ",", "\t"
INNER_CR = "\ud800"  # which no decoded text holds
Cells = list[str]


def layout(delimiter: str, place: ObjectVersion, text_columns: Sequence[str]) -> Layout:
    """The layout by reading the whole object. The sizes are those of whole rows: `text_columns` is not used."""
    with opened(delimiter, place) as (_, index):
        index.read_rest()
        return index.layout()


@contextmanager
def reading(delimiter: str, place: ObjectVersion, names: Sequence[str], text_columns: Sequence[str]) -> Iterator[Reading]:
    with opened(delimiter, place) as (header, index):
        batches = (rows_of(header, (cells for cells, _ in batch), names, place.uri) for batch in batches_of(index.rows))
        yield reading_of(index.schema, batches, index.layout)


@contextmanager
def opened(delimiter: str, place: ObjectVersion) -> Iterator[tuple[Cells, RowIndex[Cells]]]:
    """The header of an object and its other rows."""
    with open_text(place.store, place.uri, place.version) as text:
        records = Records(text, delimiter, place.uri)
        header = records.header()
        schema = pa.schema([(name, pa.string()) for name in header]) if header else None
        yield header, RowIndex(records.behind_header(), iter(records), not_, schema)


def part_rows(delimiter: str, store: Store, part: Part, names: Sequence[str], row_bytes: float) -> TextRows:
    header = header_of(delimiter, store, part.uri, part.version)
    require_names(header, [name for name in names if name in header], part.uri)
    expected_bytes = int(row_bytes * (part.skip + part.stop - part.start))
    with open_text(store, part.uri, part.version, expected_bytes, part.offset) as text:
        records = Records(text, delimiter, part.uri)
        if not part.offset:
            records.header()
        return rows_of(header, part_records((cells for cells, _ in records if cells), part), names, part.uri)


@lru_cache(maxsize=16)
def header_of(delimiter: str, store: Store, uri: str, version: str) -> Cells:
    """The header of one version of an object. It is read once a process."""
    with open_text(store, uri, version) as text:
        return Records(text, delimiter, uri).header()


class Records:
    """The records of an open object with their lengths in bytes. A blank line is an empty record."""

    def __init__(self, text: TextFile, delimiter: str, uri: str) -> None:
        require_text(text, uri)
        csv.field_size_limit(MAX_LINE_BYTES)
        self.text, self.uri = text, uri
        self.line = self.taken = 0  # lines that were read, and their bytes
        self.reader = csv.reader(self._lines(), delimiter=delimiter, strict=True)

    def _lines(self) -> Iterator[str]:
        for line, length in self.text.lines:
            self.line += 1
            self.taken += length
            if length > len(line):
                raise ObjectError(f"{self.uri}: line {self.line} has {length:,} bytes, more than {MAX_LINE_BYTES:,}, the most that is read")
            decoded_line = line.decode("utf-8", "surrogateescape")
            # The module takes a CR within a line for its end. pandas writes such texts without quotes.
            yield decoded_line if "\r" not in decoded_line[:-2] else decoded_line[:-2].replace("\r", INNER_CR) + decoded_line[-2:]

    def __iter__(self) -> Iterator[tuple[Cells, int]]:
        return self

    def __next__(self) -> tuple[Cells, int]:
        """Raises ObjectError where quotes are not as RFC 4180 has them: every later row may then be torn."""
        first, before = self.line + 1, self.taken
        try:
            cells = next(self.reader)
        except csv.Error as error:
            raise ObjectError(
                f"{self.uri}: lines {first} to {self.line} are no row of CSV ({error}); write it again with quotes as RFC 4180 has them, "
                "or as Parquet"
            ) from None
        if any(INNER_CR in cell for cell in cells):
            cells = [cell.replace(INNER_CR, "\r") for cell in cells]
        return cells, self.taken - before

    def header(self) -> Cells:
        """The first record that is not blank; empty where there is none. Bytes that are not UTF-8 are U+FFFD."""
        cells = next((cells for cells, _ in self if cells), [])
        return [cell.encode("utf-8", "surrogateescape").decode("utf-8", "replace") for cell in cells]

    def behind_header(self) -> TextFile:
        """The text from where the records go on."""
        text = self.text
        return TextFile(text.file, text.offset + self.taken, text.line_end, text.can_start_inside)


def rows_of(header: Cells, records: Iterable[Cells], names: Sequence[str], uri: str) -> TextRows:
    """Records as rows with those of the columns `names` that the header has."""
    present = [name for name in names if name in header]
    require_names(header, present, uri)
    reasons: Reasons = {}
    rows: list[Cells] = []
    for number, cells in enumerate(records):
        if len(cells) == len(header):
            rows.append(cells)
        else:
            reasons[number] = ("not_csv", f"{len(cells)} cells, and the header has {len(header)}")
            rows.append([""] * len(header))
    places = {name: header.index(name) for name in present}
    return TextRows(len(rows), {name: decoded([cells[place] or None for cells in rows]) for name, place in places.items()}, reasons)


def decoded(texts: list[str | None]) -> Sequence[str | bytes | None]:
    """The texts with bytes for those that are not UTF-8, which hold lone surrogates."""
    try:
        "".join([text for text in texts if text]).encode()
    except UnicodeEncodeError:
        return [text and without_surrogates(text) for text in texts]
    return texts


def without_surrogates(text: str) -> str | bytes:
    raw = text.encode("utf-8", "surrogateescape")
    return text if text.isascii() or raw.decode("utf-8", "replace") == text else raw


CSV = Format("csv", (".csv",), (), partial(layout, COMMA), partial(reading, COMMA), partial(part_rows, COMMA))
TSV = Format("tsv", (".tsv", ".tab"), (), partial(layout, TAB), partial(reading, TAB), partial(part_rows, TAB))
