"""Executors run the stages on shards: the protocol, and the executor of one process."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from bulkembed.embedding.embedder import Embedder
from bulkembed.errors import BulkembedError
from bulkembed.records import Failure, LostAttempt, Receipt, Sampled
from bulkembed.runs import stages
from bulkembed.runs.job import Job
from bulkembed.runs.mapper import LocalMapper, Mapper
from bulkembed.shards import Shard


class Executor(Protocol):
    """Runs the stages on shards, and other functions on many items: on Ray or in this process."""

    def mapper(self, size: int) -> Mapper:
        """What runs functions on items of so many bytes in all."""
        ...

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        """Embeds and publishes shards. Yields an outcome for each shard."""
        ...

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        """Embeds shards and yields what each shows of the ranges of int8 columns. Publishes nothing."""
        ...


class LocalExecutor:
    """Runs one shard after the other in this process, without Ray."""

    def __init__(self, embedder: Embedder) -> None:
        self.embedder = embedder

    def mapper(self, size: int) -> Mapper:
        return LocalMapper()

    def run(self, shards: list[Shard], job: Job) -> Iterator[Receipt | Failure | LostAttempt]:
        for shard in shards:
            try:
                yield stages.run_shard(shard, job, self.embedder)
            except BulkembedError as error:
                yield Failure(shard.id, str(error))

    def sample(self, shards: list[Shard], job: Job) -> Iterator[Sampled | Failure | LostAttempt]:
        for shard in shards:
            try:
                yield stages.sample(shard, job, self.embedder)
            except BulkembedError as error:
                yield Failure(shard.id, str(error))
