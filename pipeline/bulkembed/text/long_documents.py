"""What the engine gets of each document, by the run's policy for long ones:

truncate   its beginning
chunk      windows, each a row
mean       windows, whose mean is the row
reject     nothing: the document goes to the rejects
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bulkembed import schema
from bulkembed.config.run_config import RunConfig
from bulkembed.records import Counts, Documents, LongDocuments, Prepared, Shard, Tokens
from bulkembed.text.tokenizer import Tokenizer
from bulkembed.text.windows import windows


@dataclass(frozen=True)
class Pieces:
    """What the engine is given of a shard's documents, in source order: each document whole (or its
    beginning), or the windows it was cut into."""

    tokens: Tokens  # of m pieces
    documents: npt.NDArray[np.int64]  # m: the document of each piece
    spans: npt.NDArray[np.int64]  # (m, 2): its characters in that document's text


def split(documents: Documents, cfg: RunConfig, tokenizer: Tokenizer) -> Pieces:
    """Every document's pieces, in source order."""
    prompt = cfg.prompt or ""
    tokens = tokenizer.encode(documents.texts, prompt)
    ids: list[npt.NDArray[np.int32]] = []
    lost: list[int] = []
    owners: list[int] = []
    spans: list[tuple[int, int]] = []
    for document, text in enumerate(documents.texts):
        if tokens.lost[document] and cfg.long_documents in ("chunk", "mean"):
            windows, parts = chunks(text, prompt, cfg.chunk_overlap, tokenizer)
        else:
            windows, parts = [(0, len(text))], None
        spans += windows
        owners += [document] * len(windows)
        ids += [parts.of(part) for part in range(len(windows))] if parts else [tokens.of(document)]
        lost += parts.lost.tolist() if parts else [int(tokens.lost[document])]
    return Pieces(Tokens.join(ids, np.array(lost, np.int64)), np.array(owners, np.int64), np.array(spans, np.int64).reshape(-1, 2))


def chunks(text: str, prompt: str, overlap: int, tokenizer: Tokenizer) -> tuple[list[tuple[int, int]], Tokens]:
    """The windows of a long text, and the token ids of each as a text of its own, so that anyone
    can make the same vector from the same characters."""
    offsets = tokenizer.character_spans(text)
    room = tokenizer.room - tokenizer.count(prompt)
    while True:
        spans = windows(text, offsets, max(1, room), overlap)
        tokens = tokenizer.encode([text[start:stop] for start, stop in spans], prompt)
        worst = int(tokens.lost.max())
        # On its own a window can have a token or two more than within its text.
        if not worst or room <= 1:
            return spans, tokens
        room -= worst


def prepared(shard: Shard, documents: Documents, pieces: Pieces, hashes: list[bytes], policy: LongDocuments) -> Prepared:
    """The rows of the data file without their vectors, and what the engine gets for them."""
    lengths, lost = pieces.tokens.lengths, pieces.tokens.lost
    content = pa.array(hashes, pa.binary(16))
    rows, owners, numbers = documents.rows, pieces.documents, documents.numbers
    if policy == "chunk":
        owners, numbers = np.arange(len(lengths)), numbers[pieces.documents]
        rows, content = rows.take(pa.array(pieces.documents)), content.take(pa.array(pieces.documents))
        first = np.searchsorted(pieces.documents, pieces.documents)
        chunk = (owners - first, pieces.spans[:, 0], pieces.spans[:, 1])
        for field, values in zip(schema.CHUNKS, chunk, strict=True):
            rows = rows.append_column(field, pa.array(values, field.type))
    n_tokens = np.bincount(owners, lengths, rows.num_rows).astype(np.int32)
    cut = np.bincount(owners, lost, rows.num_rows).astype(np.int64)
    for field, column in zip(schema.TAIL, (pa.array(n_tokens), pa.array(cut > 0), content), strict=True):
        rows = rows.append_column(field, column)
    counts = Counts(
        rows=shard.rows,
        documents=len(documents.texts),
        vectors=rows.num_rows,
        rejects=documents.rejects.num_rows,
        repeated_ids=documents.repeated_ids,
        tokens=int(lengths.sum()),
        truncated=int(np.count_nonzero(cut)),
        tokens_cut=int(cut.sum()),
        chunked=int(np.count_nonzero(np.bincount(pieces.documents) > 1)),
    )
    return Prepared(shard, rows, numbers, pieces.tokens, owners, documents.rejects, counts, seconds={})


def only(prepared: Prepared, rows: npt.NDArray[np.int64]) -> Prepared:
    """These rows of a prepared shard, in their order, and their pieces. The counts stay those of all."""
    pieces = np.flatnonzero(np.isin(prepared.owners, rows))
    return replace(
        prepared,
        rows=prepared.rows.take(pa.array(rows)),
        numbers=prepared.numbers[rows],
        tokens=Tokens.join([prepared.tokens.of(int(piece)) for piece in pieces], prepared.tokens.lost[pieces]),
        owners=np.searchsorted(rows, prepared.owners[pieces]),
    )


def rejected(prepared: Prepared, reasons: dict[int, tuple[str, str]]) -> Prepared:
    """The same shard with some documents moved to its rejects. `reasons`: (reason, detail) by row of the source object."""
    if not reasons:
        return prepared
    moved = np.isin(prepared.numbers, list(reasons))
    gone, first = prepared.rows.filter(pa.array(moved)), np.unique(prepared.numbers[moved], return_index=True)[1]
    numbers = prepared.numbers[moved][first]  # once for a document of several chunks
    found = [reasons[int(number)] for number in numbers]
    columns = [
        gone["id"].take(pa.array(first)),
        pa.array(numbers),
        *(pa.array([each[part] for each in found], pa.string()) for part in (0, 1)),
    ]
    rejects = pa.concat_tables([prepared.rejects, pa.Table.from_arrays(columns, schema=prepared.rejects.schema)]).sort_by("row")
    left = only(prepared, np.flatnonzero(~moved))
    was = prepared.counts
    counts = replace(
        was,
        documents=was.documents - len(numbers),
        vectors=left.rows.num_rows,
        rejects=was.rejects + len(numbers),
        tokens=int(left.tokens.lengths.sum()),
        truncated=int(np.count_nonzero(left.rows["truncated"].to_numpy())),
        tokens_cut=int(left.tokens.lost.sum()),
    )
    return replace(left, rejects=rejects, counts=counts)


def too_long(prepared: Prepared, limit: int) -> dict[int, tuple[str, str]]:
    """The documents of which something had to be cut off."""
    cut = np.flatnonzero(prepared.tokens.lost)
    numbers, lost = prepared.numbers[prepared.owners[cut]], prepared.tokens.lost[cut]
    return {
        int(number): ("too_long", f"about {limit + more} tokens, more than {limit}") for number, more in zip(numbers, lost, strict=True)
    }
