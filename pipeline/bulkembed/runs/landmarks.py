"""What every node of a cluster must see as the driver does: the output, the source and the model's files.

A folder of one host is not the same place on another one. Shards would be written where nobody looks for them."""

from __future__ import annotations

import logging
import re
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
from bulkembed.storage.store import Store

log = logging.getLogger(__name__)

WILDCARD = re.compile(r"[*?\[]")
OF_SOURCE = "source: "  # begins the message about a source that is another place
EVERYWHERE = "use an object store, or a folder that is mounted at the same path on every node"


Objects = tuple[tuple[str, str], ...]  # URI and version of each


@dataclass(frozen=True)
class Landmarks:
    """A file that the driver has written to the output, and objects of each place of the source, as the driver has seen them."""

    output: str
    written: str
    sources: tuple[Objects, ...] = ()


@contextmanager
def landmarks(job: Job, shards: Sequence[Shard]) -> Iterator[Landmarks]:
    """Writes the file, and removes it at the end of the block. Two requests to the store."""
    token = uuid.uuid4().hex
    uri = paths.clock_uri(job.cfg.output, token)
    job.store.put(uri, token.encode())
    try:
        yield Landmarks(uri, token, some_objects(job.cfg.sources, shards))
    finally:
        job.store.delete(uri)


def some_objects(places: Sequence[str], shards: Sequence[Shard]) -> tuple[Objects, ...]:
    """The first and the last object of each place: one may change while the run goes on, and says nothing about a host."""
    stems = [WILDCARD.split(place)[0] for place in places]
    found: dict[str, dict[str, str]] = {}
    for part in (part for shard in shards for part in shard.parts):
        place = next((stem for stem in stems if part.uri.startswith(stem)), "")
        found.setdefault(place, {})[part.uri] = part.version
    return tuple(tuple(dict([*objects.items()][:: max(1, len(objects) - 1)]).items()) for objects in found.values())


def require_seen(job: Job, seen: Landmarks) -> None:
    """Raises ConfigError or SourceError where this host's output or source is another place than the driver's."""
    host = socket.gethostname()
    if reason := output_difference(job.store, seen):
        raise ConfigError(f"output: {host} cannot read what the driver wrote to {job.cfg.output} ({reason}); {EVERYWHERE}")
    if problem := source_problem(job.source_store, seen):
        raise SourceError(f"{OF_SOURCE}{host} does not see {problem}; {EVERYWHERE}")


def source_problem(store: Store, seen: Landmarks) -> str:
    """What of the source this host does not see as the driver did, with the reason. Empty where it sees an object of each place."""
    for objects in seen.sources:
        reasons = [f"{uri} as the driver does ({reason})" for uri, version in objects if (reason := object_difference(store, uri, version))]
        if len(reasons) == len(objects):
            return reasons[0]
    return ""


def output_difference(store: Store, seen: Landmarks) -> str:
    """Why this host's output is another place. Empty where it is the same."""
    try:
        return "" if store.read(seen.output) == seen.written.encode() else "another file is there"
    except (OSError, BulkembedError) as error:
        return describe_error(error)


def object_difference(store: Store, uri: str, version: str) -> str:
    """Why this host does not see an object of the source in this version. Empty where it does."""
    try:
        return "" if store.version(uri) == version else "it is another one there"
    except (OSError, BulkembedError) as error:
        return describe_error(error)


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
