"""What the engine gets of each document, by the run's policy for long ones:

truncate   its beginning
chunk      windows, each a row
mean       windows, whose mean is the row
reject     nothing: the document goes to the rejects
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline import chunking, schema
from pipeline.config import RunConfig
from pipeline.records import Documents, LongDocuments, Pieces, Tokens
from pipeline.tokenizer import Tokenizer


def split(documents: Documents, cfg: RunConfig, tokenizer: Tokenizer) -> tuple[Documents, Pieces]:
    """The documents that stay, and their pieces."""
    prompt = cfg.prompt or ""
    tokens = tokenizer.encode(documents.texts, prompt)
    long = tokens.lost > 0
    if cfg.long_documents == "reject" and long.any():
        documents, tokens = without(documents, tokens, np.flatnonzero(long), tokenizer.max_tokens)
        long = tokens.lost > 0
    ids: list[npt.NDArray[np.int32]] = []
    lost: list[int] = []
    owners: list[int] = []
    spans: list[tuple[int, int]] = []
    for document, text in enumerate(documents.texts):
        if long[document] and cfg.long_documents in ("chunk", "mean"):
            windows, parts = chunks(text, prompt, cfg.chunk_overlap, tokenizer)
        else:
            windows, parts = [(0, len(text))], None
        spans += windows
        owners += [document] * len(windows)
        ids += [parts.of(part) for part in range(len(windows))] if parts else [tokens.of(document)]
        lost += parts.lost.tolist() if parts else [int(tokens.lost[document])]
    pieces = Pieces(Tokens.join(ids, np.array(lost, np.int64)), np.array(owners, np.int64), np.array(spans, np.int64).reshape(-1, 2))
    return documents, pieces


def chunks(text: str, prompt: str, overlap: int, tokenizer: Tokenizer) -> tuple[list[tuple[int, int]], Tokens]:
    """The windows of a long text, and the token ids of each as a text of its own, so that anyone
    can make the same vector from the same characters."""
    offsets = tokenizer.character_spans(text)
    room = tokenizer.room - tokenizer.count(prompt)
    while True:
        windows = chunking.windows(text, offsets, max(1, room), overlap)
        tokens = tokenizer.encode([text[start:stop] for start, stop in windows], prompt)
        worst = int(tokens.lost.max())
        # On its own a window can have a token or two more than within its text.
        if not worst or room <= 1:
            return windows, tokens
        room -= worst


def without(documents: Documents, tokens: Tokens, unwanted: npt.NDArray[np.int64], limit: int) -> tuple[Documents, Tokens]:
    """Moves over-long documents to the rejects."""
    kept = np.setdiff1d(np.arange(len(documents.texts)), unwanted)
    moved = pa.Table.from_arrays(
        [
            documents.rows["id"].take(pa.array(unwanted)),
            pa.array(documents.numbers[unwanted]),
            pa.array(["too_long"] * len(unwanted), pa.string()),
            pa.array([f"about {limit + tokens.lost[document]} tokens, more than {limit}" for document in unwanted], pa.string()),
        ],
        schema=documents.rejects.schema,
    )
    left = Documents(
        documents.rows.take(pa.array(kept)),
        documents.numbers[kept],
        [documents.texts[document] for document in kept],
        pa.concat_tables([documents.rejects, moved]).sort_by("row"),
        documents.repeated_ids,
    )
    return left, Tokens.join([tokens.of(int(document)) for document in kept], tokens.lost[kept])


def output_rows(documents: Documents, pieces: Pieces, hashes: list[bytes], policy: LongDocuments) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """The rows of the data file without their vectors, and the row of each piece."""
    lengths, lost = pieces.tokens.lengths, pieces.tokens.lost
    content = pa.array(hashes, pa.binary(16))
    rows, owners = documents.rows, pieces.documents
    if policy == "chunk":
        owners = np.arange(len(lengths))
        rows, content = rows.take(pa.array(pieces.documents)), content.take(pa.array(pieces.documents))
        first = np.searchsorted(pieces.documents, pieces.documents)
        chunk = (owners - first, pieces.spans[:, 0], pieces.spans[:, 1])
        for field, values in zip(schema.CHUNKS, chunk, strict=True):
            rows = rows.append_column(field, pa.array(values, field.type))
    n_tokens = np.bincount(owners, lengths, rows.num_rows).astype(np.int32)
    truncated = np.bincount(owners, lost, rows.num_rows) > 0
    for field, column in zip(schema.TAIL, (pa.array(n_tokens), pa.array(truncated), content), strict=True):
        rows = rows.append_column(field, column)
    return rows, owners
