"""bulkembed: a corpus in object storage becomes a dataset of vectors in object storage.

The way of the data, one file a step:

    manifest   source objects -> shards (row ranges whose ids come from the data)
    reader     shard -> documents; bad rows -> rejects, each with its reason
    tokenizer  texts -> token ids
    bucketing  token counts -> batches of similar length under a token budget
    embedder   batches of token ids -> full-width vectors (vLLM, or simulated)
    matryoshka full-width vectors -> truncated, renormalised, cast
    writer     columns and vectors -> Parquet, one PUT
    ledger     receipts (what is done) and snapshots (what readers see)

`stages` composes these into prepare / embed / publish without Ray; `dataflow` runs the same
verbs on Ray tasks and actors; `run` is a whole run; `cli` is the command line over it.
"""

__version__ = "0.1.0"
