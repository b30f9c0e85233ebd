"""A model's files -> a model that is loaded in this process."""

from __future__ import annotations

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pydantic import ValidationError

from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hub, model_files, model_identity
from bulkembed.embedding.embedder import Embedder
from bulkembed.embedding.simulated import Faults, SimulatedEmbedder
from bulkembed.embedding.vllm_engine import VLLMEmbedder
from bulkembed.errors import BulkembedError, EngineError
from bulkembed.records import LoadedFiles, Model

MAX_REASON = 300  # characters
log = logging.getLogger(__name__)


def load(described: Model, max_tokens: int, engine: EngineConfig) -> tuple[Embedder, LoadedFiles]:
    """The loaded model, and the hashes of its files. A hub model that is not on this node yet is fetched first.

    Raises ModelError where the files are missing or are not those that were described, HubError where the hub does
    not answer, EngineError where the engine cannot load them now, BulkembedError where it never can."""
    needs_weights = engine.kind == "vllm"
    folder = model_files.locate(described.name, described.revision, needs_weights)
    hub.close()
    # Hashing and loading both wait for the disk, and hold the interpreter's lock only briefly. So they run at the same time.
    with ThreadPoolExecutor(1, "hashing") as pool:
        hashing = pool.submit(model_identity.file_hashes, folder, needs_weights)
        try:
            loaded = build_embedder(str(folder), described, max_tokens, engine)
        except BulkembedError:
            raise
        except Exception as error:
            log.debug("", exc_info=error)
            kind = EngineError if may_pass(error) else BulkembedError
            raise kind(f"model: {described.name} could not be loaded: {reason_of(error)}") from error
        files = LoadedFiles(socket.gethostname(), hashing.result())
    model_identity.require_described(described, dict(files.hashes), files.host)
    return loaded, files


def reason_of(error: Exception) -> str:
    """One line of an engine's error. Those of vLLM's settings have their reason behind a heading, and pages of advice behind that."""
    found: Any = error.errors()[0].get("msg", "") if isinstance(error, ValidationError) else str(error)
    if "trust_remote_code" in found:
        return "vLLM asks for the model's own code, which is not run unless engine.args has trust_remote_code"
    lines = [line.strip() for line in str(found).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:MAX_REASON] if lines else ''}".rstrip(": ")


def may_pass(error: Exception) -> bool:
    """Whether the model may load another time or elsewhere: memory that another process holds, a full disk, a device in trouble.

    vLLM raises a ValueError where too little of the GPU's memory is free."""
    passes = isinstance(error, OSError | MemoryError | RuntimeError) and not isinstance(error, NotImplementedError | RecursionError)
    return passes or "memory" in str(error).lower()


def build_embedder(path: str, model: Model, max_tokens: int, engine: EngineConfig) -> Embedder:
    """The embedder that `engine.kind` names, for the model in the folder `path`."""
    if engine.kind == "simulated":
        return SimulatedEmbedder(model.width, engine.tokens_per_second, Faults(**engine.args) if engine.args else None)
    return VLLMEmbedder(path, model, max_tokens, engine)
