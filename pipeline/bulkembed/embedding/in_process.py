"""A model in this process: for `search`, `check` and `verify --sample`, which need no cluster."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from bulkembed import process_state
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hub, loading
from bulkembed.embedding.embedder import Embedder
from bulkembed.embedding.environment import engine_environment
from bulkembed.records import Model

log = logging.getLogger(__name__)


def load(described: Model, max_tokens: int, engine: EngineConfig) -> Embedder:
    """Raises BulkembedError where the engine cannot load the model."""
    # vLLM reads these as it is imported. Settings for a GPU host are its own defaults.
    os.environ.update(engine_environment(engine, len(os.sched_getaffinity(0))))
    return loading.load(described, max_tokens, engine)[0]


@contextmanager
def loaded(model: Model, max_tokens: int, engine: EngineConfig) -> Iterator[Embedder]:
    """A model in this process for as long as the context lasts. The process has its environment, its signal handlers and its
    access to the hub back afterwards.

    Raises BulkembedError where the engine cannot load the model."""
    handlers = process_state.SignalHandlers()
    try:
        with process_state.same_environment(lambda _name: True), hub.same_access(), quiet():
            yield load(model, max_tokens, engine)
    finally:
        handlers.restore()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps from the terminal what libraries print while a model loads and runs; where that fails, the log has it."""
    with tempfile.TemporaryFile() as kept:
        terminal = os.dup(2)
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(terminal, 2)
            kept.seek(0)
            log.info("%s", kept.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
