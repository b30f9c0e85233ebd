"""A corpus that an upstream job writes anew every night: other cuts, another order, and a few documents that are not as they were.

A document is three numbers: its id, its content and its kept columns. A text and the kept columns are functions of these numbers, so a
night of millions of documents is arithmetic, and what is new in it is known exactly.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from scripts.samples import demo_corpus

Numbers = npt.NDArray[np.int64]
KEPT_COLUMNS = ("url", "title", "updated")
STRIDE = 2_654_435_761  # a large prime: neighbouring contents begin far apart in the pool of text
ROWS_PER_GROUP = 4096


@dataclass(frozen=True)
class Corpus:
    """The documents of one night. All arrays have a number for each document."""

    ids: Numbers
    contents: Numbers
    kept: Numbers
    next_content: int  # all contents from here on are new
    characters: int  # of a text at least; texts have up to half as many more

    @property
    def rows(self) -> int:
        return len(self.ids)

    def take(self, rows: Numbers) -> Corpus:
        return Corpus(self.ids[rows], self.contents[rows], self.kept[rows], self.next_content, self.characters)


@dataclass(frozen=True)
class Shares:
    """What happens in a night, as shares of all documents."""

    changed: float = 0.01  # get a new text
    added: float = 0.005
    deleted: float = 0.002
    kept_changed: float = 0.0  # keep their text and get other kept columns
    swapped: float = 0.0  # pass their texts around among each other
    copied: float = 0.0  # get the text that another document has
    doubled: float = 0.0  # get the new text that another document gets in this night


def first_night(rows: int, characters: int = 200) -> Corpus:
    numbers = np.arange(rows, dtype=np.int64)
    return Corpus(numbers, numbers, numbers, rows, characters)


def next_night(corpus: Corpus, shares: Shares, random: np.random.Generator) -> Corpus:
    """The documents of the following night. No document is touched twice."""
    order = random.permutation(corpus.rows)
    kinds = (shares.deleted, shares.changed, shares.kept_changed, shares.swapped, shares.copied, shares.doubled)
    counts = [round(share * corpus.rows) for share in kinds]
    deleted, changed, kept_changed, swapped, copied, doubled, _ = np.split(order, np.cumsum(counts))
    contents, kept, following = corpus.contents.copy(), corpus.kept.copy(), corpus.next_content
    contents[changed] = kept[changed] = following + np.arange(len(changed))
    following += len(changed)
    kept[kept_changed] += 1
    contents[swapped] = contents[np.roll(swapped, 1)]
    contents[copied] = corpus.contents[random.integers(0, corpus.rows, len(copied))]
    contents[doubled] = contents[random.choice(changed, len(doubled))]
    added = following + np.arange(round(shares.added * corpus.rows))
    stay = np.setdiff1d(np.arange(corpus.rows), deleted)
    return Corpus(
        # Contents are never numbered twice, so the number of a new content is a new id, too.
        np.concatenate([corpus.ids[stay], added]),
        np.concatenate([contents[stay], added]),
        np.concatenate([kept[stay], added]),
        following + len(added),
        corpus.characters,
    )


def new_contents(before: Corpus, after: Corpus) -> int:
    """How many different contents no document had the night before."""
    return len(np.setdiff1d(after.contents, before.contents))


def id_texts(ids: Numbers) -> list[str]:
    return [f"doc-{number:010d}" for number in ids.tolist()]


@cache
def pool() -> str:
    return "\n\n".join(row["text"] for row in demo_corpus.documents())


def texts(contents: Numbers, characters: int) -> list[str]:
    """A slice of the demo corpus for each content, with the content's number before it: no two contents have the same text."""
    text, more = pool(), characters // 2
    starts = (contents.astype(np.uint64) * np.uint64(STRIDE)) % np.uint64(len(text) - characters - more)
    stops = starts.astype(np.int64) + characters + contents % more
    return [f"{number} {text[start:stop]}" for number, start, stop in zip(contents.tolist(), starts.tolist(), stops.tolist(), strict=True)]


def table(corpus: Corpus) -> pa.Table:
    """The documents as rows: id, text and some hundred bytes of kept columns."""
    ids, kept = corpus.ids.tolist(), corpus.kept.tolist()
    columns = {
        "id": id_texts(corpus.ids),
        "text": texts(corpus.contents, corpus.characters),
        "url": [f"https://docs.example.org/library/articles/{number:010d}.html" for number in ids],
        "title": [f"Article {number} in its version {version}" for number, version in zip(ids, kept, strict=True)],
        "updated": pa.array((1_700_000_000 + corpus.kept) * 1_000_000, pa.timestamp("us", "UTC")),
    }
    return pa.table(columns)


def write(corpus: Corpus, folder: Path, files: int, random: np.random.Generator) -> None:
    """Writes all documents anew, in another order and with other cuts. What lay in the folder before is removed."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for number, part in enumerate(cuts(corpus.rows, files, random)):
        # Names differ between nights, as those of upstream jobs do.
        name = f"part-{number:05d}-{random.integers(1 << 32):08x}.parquet"
        pq.write_table(table(corpus.take(part)), folder / name, row_group_size=ROWS_PER_GROUP)


def cuts(rows: int, files: int, random: np.random.Generator) -> Iterator[Numbers]:
    """All rows in random order, in parts of about equal size."""
    equal = np.linspace(0, rows, files + 1)[1:-1]
    moved = equal + random.uniform(-0.3, 0.3, files - 1) * rows / files
    parts: Sequence[Numbers] = np.split(random.permutation(rows), moved.astype(np.int64))
    return iter(parts)
