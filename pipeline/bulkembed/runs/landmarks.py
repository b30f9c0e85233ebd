"""What every node of a cluster must see as the driver does: the output, the source and the model's files.

A folder of one host is not the same place on another one. Shards would be written where nobody looks for them."""

from __future__ import annotations

import logging
import socket
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from bulkembed.dataset import paths
from bulkembed.embedding import model_files
from bulkembed.errors import BulkembedError, ConfigError, HubError, ModelError, SourceError
from bulkembed.runs.job import Job
from bulkembed.shards import Shard
from bulkembed.storage.faults import describe_error

log = logging.getLogger(__name__)

EVERYWHERE = "use an object store, or a folder that is mounted at the same path on every node"


@dataclass(frozen=True)
class Landmarks:
    """A file that the driver has written to the output, and an object of the source with the version that the driver has seen."""

    output: str
    written: str
    source: str = ""
    version: str = ""


@contextmanager
def landmarks(job: Job, shards: Sequence[Shard]) -> Iterator[Landmarks]:
    """Writes the file, and removes it at the end of the block. Two requests to the store."""
    token = uuid.uuid4().hex
    uri = paths.clock_uri(job.cfg.output, token)
    job.store.put(uri, token.encode())
    first = shards[0].parts[0] if shards else None
    try:
        yield Landmarks(uri, token, first.uri, first.version) if first else Landmarks(uri, token)
    finally:
        job.store.delete(uri)


def require_seen(job: Job, seen: Landmarks) -> None:
    """Raises ConfigError or SourceError where this host's output or source is another place than the driver's."""
    host = socket.gethostname()
    try:
        is_same = job.store.read(seen.output) == seen.written.encode()
        reason = "" if is_same else "another file is there"
    except (OSError, BulkembedError) as error:
        reason = describe_error(error)
    if reason:
        raise ConfigError(f"output: {host} cannot read what the driver wrote to {job.cfg.output} ({reason}); {EVERYWHERE}")
    try:
        is_same = not seen.source or job.source_store.version(seen.source) == seen.version
        reason = "" if is_same else "it is another one there"
    except (OSError, BulkembedError) as error:
        reason = describe_error(error)
    if reason:
        raise SourceError(f"source: {host} does not see {seen.source} as the driver does ({reason}); {EVERYWHERE}")


def lacks(job: Job) -> str:
    """What this host lacks to embed: the driver's bulkembed, or the files that describe the model. Empty where it lacks nothing.

    A hub that does not answer now may answer later."""
    try:
        job.package.require_here()
        model_files.locate(job.model.name, job.model.revision, weights=False)
        job.tokenizer  # noqa: B018  # raises ModelError where it is another one
    except (ConfigError, ModelError) as error:
        return str(error)
    except HubError as error:
        log.warning("bulkembed: %s: %s", socket.gethostname(), error)
    return ""
