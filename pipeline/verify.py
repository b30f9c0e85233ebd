"""Re-reads a finished dataset and says everything that is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import Ledger
from pipeline.records import Receipt, Snapshot
from pipeline.storage import CORRUPT, Store, describe

NORM_TOLERANCE = 1e-3


def verify(store: Store, ledger: Ledger, snapshot: Snapshot) -> Iterator[str]:
    """Problems of a dataset, one line each; none means that it is whole.

    Checks that every shard's files are there and readable, that rows agree with the receipts, that
    all schemas and footers are alike, and that every vector is finite and of norm 1."""
    present = set(ledger.done())
    schema: pa.Schema | None = None
    for shard_id in snapshot.shards:
        if shard_id not in present:
            yield f"{ledger.receipt(shard_id)}: missing"
            continue
        receipt = next(ledger.read_receipts([shard_id]))
        uri = ledger.data(shard_id)
        try:
            with store.open(uri) as file:
                parquet = pq.ParquetFile(file, pre_buffer=True)
                found = parquet.schema_arrow
                if schema is None:
                    schema = found
                if found.remove_metadata() != schema.remove_metadata():
                    yield f"{uri}: its columns differ from those of the first file"
                yield from footer_problems(uri, found, receipt)
                yield from row_problems(uri, parquet, receipt)
        except FileNotFoundError:
            yield f"{uri}: missing"
        except CORRUPT as error:
            yield f"{uri}: unreadable: {describe(error)}"
        if receipt.rejects:
            yield from reject_problems(store, ledger.rejects(shard_id), receipt)


def footer_problems(uri: str, found: pa.Schema, receipt: Receipt) -> Iterator[str]:
    footer = {key.decode(): value.decode() for key, value in (found.metadata or {}).items()}
    for name, value in receipt.provenance.items():
        if footer.get(f"bulkembed.{name}") != value:
            yield f"{uri}: footer says {name} = {footer.get(f'bulkembed.{name}')!r}, its receipt {value!r}"


def row_problems(uri: str, parquet: pq.ParquetFile, receipt: Receipt) -> Iterator[str]:
    rows = tokens = 0
    for number in range(parquet.num_row_groups):
        table = parquet.read_row_group(number)
        rows += table.num_rows
        tokens += int(np.sum(table["n_tokens"].to_numpy(), dtype=np.int64))
        if table["id"].null_count:
            yield f"{uri}: {table['id'].null_count} ids are null"
        for name in table.column_names:
            if name == "embedding" or name.startswith("embedding_"):
                column = table[name].combine_chunks()
                vectors = column.flatten().to_numpy(zero_copy_only=False).reshape(len(column), column.type.list_size)
                norms = np.linalg.norm(vectors.astype(np.float32), axis=1)
                bad = int(np.count_nonzero(~(np.abs(norms - 1) <= NORM_TOLERANCE)))
                if bad:
                    yield f"{uri}: {bad} vectors of column {name} are not finite and of norm 1"
    if rows != receipt.documents:
        yield f"{uri}: {rows} rows, its receipt says {receipt.documents}"
    elif tokens != receipt.tokens:
        yield f"{uri}: {tokens} tokens, its receipt says {receipt.tokens}"


def reject_problems(store: Store, uri: str, receipt: Receipt) -> Iterator[str]:
    try:
        with store.open(uri) as file:
            rows = pq.ParquetFile(file).metadata.num_rows
    except FileNotFoundError:
        yield f"{uri}: missing"
        return
    except CORRUPT as error:
        yield f"{uri}: unreadable: {describe(error)}"
        return
    if rows != receipt.rejects:
        yield f"{uri}: {rows} rows, its receipt says {receipt.rejects}"
