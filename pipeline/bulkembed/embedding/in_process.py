"""A model in this process. `search`, `check` and `verify --sample` use it, and need no cluster."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from bulkembed import process_state
from bulkembed.config.sections import EngineConfig
from bulkembed.embedding import hardware, hub, loading
from bulkembed.embedding.embedder import Embedder
from bulkembed.embedding.environment import engine_environment
from bulkembed.records import Model

log = logging.getLogger(__name__)


def load(model: Model, max_tokens: int, engine: EngineConfig) -> Embedder:
    """The model, loaded. Raises BulkembedError where the engine cannot load it."""
    # vLLM reads the environment when it is imported. On a GPU host its own defaults apply.
    os.environ.update(engine_environment(engine, hardware.usable_cores()))
    return loading.load(model, max_tokens, engine)[0]


@contextmanager
def loaded(model: Model, max_tokens: int, engine: EngineConfig) -> Iterator[Embedder]:
    """A model in this process for as long as the context lasts. The process has its environment, its signal handlers and its
    access to the hub back afterwards.

    Raises BulkembedError where the engine cannot load the model."""
    handlers = process_state.SignalHandlers()
    try:
        with process_state.same_environment(lambda _name: True), process_state.same_hooks(), hub.same_access(), quiet():
            yield load(model, max_tokens, engine)
    finally:
        handlers.restore()


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps off the terminal what libraries print while a model loads and runs. If that fails, the log gets the text."""
    with tempfile.TemporaryFile() as captured:
        terminal = os.dup(2)
        os.dup2(captured.fileno(), 2)
        try:
            yield
        except Exception:
            os.dup2(terminal, 2)
            captured.seek(0)
            log.info("%s", captured.read().decode(errors="replace"))
            raise
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
