"""Documents of a shard -> the token ids that the engine embeds, and the rows that their vectors get.

The run's policy says what becomes of a document above the token limit:

truncate   the engine embeds its beginning
chunk      it is cut into windows, and each window is a row
mean       it is cut into windows, and the mean of their vectors is its row
reject     it goes to the rejects

A document that came as a list of strings has its windows already: with `chunk` each string is a row, with `mean` their mean is one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import schema
from bulkembed.config.recipe import VectorKey
from bulkembed.config.template import template_pieces
from bulkembed.records import Counts, Documents, LongDocuments, Prepared, RejectReason, Tokens
from bulkembed.row_keys import binary_of, content_hashes, document_hashes
from bulkembed.shards import Shard
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.text.windows import cut_windows


@dataclass(frozen=True)
class Pieces:
    """What the engine embeds of a shard's documents, in source order: m pieces.

    A piece is a whole document, its beginning, or one of its windows."""

    tokens: Tokens  # of the m pieces
    documents: npt.NDArray[np.int64]  # (m,): the index of each piece's document
    spans: npt.NDArray[np.int64]  # (m, 2): the characters [start, stop) of each piece in its document's text
    weights: npt.NDArray[np.int64]  # (m,): tokens of the document that a piece adds to the one before; 1 for the only piece


def split_documents(documents: Documents, key: VectorKey, tokenizer: Tokenizer) -> Pieces:
    texts = text_spans(documents)
    tokens = tokenizer.encode([documents.texts[document][start:stop] for document, start, stop in texts], key.prompt)
    left_out = unseen_strings(documents, texts, tokens, key, tokenizer)
    parts: list[Tokens] = []
    owners: list[int] = []
    spans: list[tuple[int, int]] = []
    weights: list[int] = []
    for number, (document, start, stop) in enumerate(texts):
        if number in left_out:
            continue
        text = documents.texts[document][start:stop]
        if tokens.n_cut[number] and key.long_documents in ("chunk", "mean"):
            windows, part, added = windows_of(text, key.prompt, key.chunk_overlap, tokenizer)
        else:
            windows, part = [(0, stop - start)], Tokens.join([tokens.of(number)], tokens.n_cut[number : number + 1])
            added = [tokenizer.count(text) if key.long_documents == "mean" and document in documents.chunk_ends else 1]
        spans += [(start + first, start + last) for first, last in windows]
        owners += [document] * len(windows)
        weights += added
        parts.append(part)
    ids = [part.of(piece) for part in parts for piece in range(len(part.lengths))]
    n_cut = np.concatenate([np.zeros(0, np.int64), *(part.n_cut for part in parts)])
    of_pieces = np.array(owners, np.int64)
    return Pieces(
        Tokens.join(ids, n_cut),
        of_pieces,
        np.array(spans, np.int64).reshape(-1, 2),
        own_weights(of_pieces, np.array(weights, np.int64)),
    )


def own_weights(owners: npt.NDArray[np.int64], weights: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The weights, but 1 for the only piece of a document, and for every piece of a document without a token."""
    alone = np.bincount(owners)[owners] == 1
    empty = np.bincount(owners, weights)[owners] == 0
    return np.where(alone | empty, 1, weights)


def text_spans(documents: Documents) -> list[tuple[int, int, int]]:
    """(document, start, stop): the characters of each whole text, and of each string of a document that came as a list of them."""
    spans: list[tuple[int, int, int]] = []
    for document, text in enumerate(documents.texts):
        ends = documents.chunk_ends.get(document, (len(text),))
        spans += [(document, start, stop) for start, stop in pairwise((0, *ends))]
    return spans


def unseen_strings(
    documents: Documents, texts: list[tuple[int, int, int]], tokens: Tokens, key: VectorKey, tokenizer: Tokenizer
) -> set[int]:
    """Which of these texts the model sees nothing of, while it sees another string of the same list. They are no chunks."""
    if not documents.chunk_ends:
        return set()
    seen = shows_text(tokens, key, tokenizer)
    seen_documents = {document for number, (document, _, _) in enumerate(texts) if seen[number]}
    return {number for number, (document, _, _) in enumerate(texts) if not seen[number] and document in seen_documents}


def windows_of(text: str, prompt: str, overlap: int, tokenizer: Tokenizer) -> tuple[list[tuple[int, int]], Tokens, list[int]]:
    """The character ranges of a long text's windows, their token ids, and how many of the text's tokens each adds to those before.

    Each window is tokenized as a text of its own. Anyone can therefore make the same vector from the same characters."""
    offsets = tokenizer.character_spans(text)
    room = tokenizer.room - tokenizer.count(prompt)
    while True:
        spans = cut_windows(text, offsets, max(1, room), overlap)
        tokens = tokenizer.encode([text[start:stop] for start, stop in spans], prompt)
        max_cut = int(tokens.n_cut.max())
        # A window that is tokenized alone can have a token or two more than within its text.
        if not max_cut or room <= 1:
            return spans, tokens, added_tokens(offsets, spans)
        room -= max_cut


def added_tokens(offsets: npt.NDArray[np.int64], windows: list[tuple[int, int]]) -> list[int]:
    """How many tokens start in each window behind the end of the window before. Each token of the text is counted once."""
    borders = np.searchsorted(offsets[:, 0], [stop for _, stop in windows])
    added: list[int] = np.diff(borders, prepend=0).tolist()
    return added


def prepare_rows(shard: Shard, documents: Documents, pieces: Pieces, policy: LongDocuments) -> Prepared:
    """The rows of the data file without their vectors, and the token ids of their pieces."""
    lengths, n_cut = pieces.tokens.lengths, pieces.tokens.n_cut
    rows, content = documents.rows, binary_of(document_hashes(documents.texts, documents.chunk_ends))
    owners, numbers, weights = pieces.documents, documents.numbers, pieces.weights
    if policy == "chunk":
        rows, content = chunk_rows(rows, content, documents.texts, pieces)
        owners, numbers, weights = np.arange(len(lengths)), numbers[pieces.documents], np.ones(len(lengths), np.int64)
    n_tokens = np.bincount(owners, lengths, rows.num_rows).astype(np.int32)
    row_cut = np.bincount(owners, n_cut, rows.num_rows).astype(np.int64)
    for field, column in zip(schema.TAIL, (pa.array(n_tokens), pa.array(row_cut > 0), content), strict=True):
        rows = rows.append_column(field, column)
    counts = Counts(
        rows=shard.rows,
        documents=len(documents.texts),
        vectors=rows.num_rows,
        rejects=documents.rejects.num_rows,
        repeated_ids=documents.repeated_ids,
        tokens=int(lengths.sum()),
        truncated=int(np.count_nonzero(row_cut)),
        tokens_cut=int(row_cut.sum()),
        chunked=int(np.count_nonzero(np.bincount(pieces.documents) > 1)),
    )
    return Prepared(shard, rows, numbers, pieces.tokens, owners, weights, documents.rejects, counts, seconds={})


def chunk_rows(rows: pa.Table, document_hashes: pa.Array, texts: list[str], pieces: Pieces) -> tuple[pa.Table, pa.Array]:
    """A row for each piece, with the columns of its document and those of chunks, and the hash of each piece's own text."""
    owners = pieces.documents
    index = np.arange(len(owners)) - np.searchsorted(owners, owners)
    of_rows = pa.array(owners)
    rows = rows.take(of_rows)
    columns = (index, pieces.spans[:, 0], pieces.spans[:, 1], document_hashes.take(of_rows))
    for field, values in zip(schema.CHUNKS, columns, strict=True):
        rows = rows.append_column(field, pa.array(values, field.type))
    windows = (texts[owner][start:stop] for owner, (start, stop) in zip(owners, pieces.spans, strict=True))
    return rows, binary_of(content_hashes(windows))


def select_rows(prepared: Prepared, rows: npt.NDArray[np.int64]) -> Prepared:
    """A prepared shard with these rows and their pieces only. `rows`: ascending indices. The counts do not change."""
    pieces = np.flatnonzero(np.isin(prepared.owners, rows))
    return replace(
        prepared,
        rows=prepared.rows.take(pa.array(rows)),
        numbers=prepared.numbers[rows],
        tokens=Tokens.join([prepared.tokens.of(int(piece)) for piece in pieces], prepared.tokens.n_cut[pieces]),
        owners=np.searchsorted(rows, prepared.owners[pieces]),
        weights=prepared.weights[pieces],
    )


def move_to_rejects(prepared: Prepared, reasons: dict[int, tuple[RejectReason, str]]) -> Prepared:
    """A prepared shard with some of its documents moved to the rejects. `reasons`: (reason, detail) by row of the shard."""
    if not reasons:
        return prepared
    moved = np.isin(prepared.numbers, list(reasons))
    numbers, first = np.unique(prepared.numbers[moved], return_index=True)  # once for a document of several chunks
    gone = prepared.rows.filter(pa.array(moved)).take(pa.array(first))
    hashes = gone["document_hash" if "document_hash" in gone.column_names else "content_hash"]
    rejects = schema.rejects_table(
        gone["id"],
        prepared.shard.origins(numbers),
        [reasons[int(number)] for number in numbers],
        hashes.to_pylist(),
    )
    order = np.argsort(np.concatenate([rejected_rows(prepared), numbers]))
    rejects = pa.concat_tables([prepared.rejects, rejects]).take(pa.array(order))
    left = select_rows(prepared, np.flatnonzero(~moved))
    before = prepared.counts
    counts = replace(
        before,
        documents=before.documents - len(numbers),
        vectors=left.rows.num_rows,
        rejects=before.rejects + len(numbers),
        tokens=int(left.tokens.lengths.sum()),
        truncated=int(np.count_nonzero(left.rows["truncated"].to_numpy())),
        tokens_cut=int(left.tokens.n_cut.sum()),
    )
    return replace(left, rejects=rejects, counts=counts)


def rejected_rows(prepared: Prepared) -> npt.NDArray[np.int64]:
    """The rows of the shard that its rejects are: all that are no documents."""
    return np.setdiff1d(np.arange(prepared.shard.rows), prepared.numbers)


def too_long_reasons(prepared: Prepared, limit: int) -> dict[int, tuple[RejectReason, str]]:
    """(reason, detail) of each document above the token limit, by row of the shard."""
    cut = np.flatnonzero(prepared.tokens.n_cut)
    numbers, n_cut = prepared.numbers[prepared.owners[cut]], prepared.tokens.n_cut[cut]
    return {
        int(number): ("too_long", f"about {limit + more} tokens, more than {limit}") for number, more in zip(numbers, n_cut, strict=True)
    }


def empty_reasons(prepared: Prepared, key: VectorKey, tokenizer: Tokenizer) -> dict[int, tuple[RejectReason, str]]:
    """(reason, detail) of each document of which the model would see nothing, by row of the shard.

    Zero-width characters, NUL and soft hyphens have no token in many tokenizers. Such a document would get the vector of the empty text."""
    seen = shows_text(prepared.tokens, key, tokenizer)
    empty = np.setdiff1d(prepared.numbers, prepared.numbers[prepared.owners[seen]])
    detail = "the model has no token for it, beyond those of the prompt, the template and white space"
    return {int(number): ("empty_text", detail) for number in empty}


def shows_text(tokens: Tokens, key: VectorKey, tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """Which texts give the model a token beyond those of the prompt, the template and white space."""
    spaces = tokenizer.own_ids(" ")
    blank = tokenizer.encode(["".join(literal for literal, _ in template_pieces(key.template, key.text_columns))], key.prompt).flat
    blank = blank[~np.isin(blank, spaces)]
    is_shown = ~np.isin(tokens.flat, spaces)
    n_shown = np.diff(np.concatenate([np.zeros(1, np.int64), np.cumsum(is_shown)])[tokens.offsets])
    seen: npt.NDArray[np.bool_] = n_shown != len(blank)
    for text in np.flatnonzero(~seen):
        ids = tokens.of(int(text))
        seen[text] = not np.array_equal(ids[~np.isin(ids, spaces)], blank)
    return seen
