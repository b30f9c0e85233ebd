"""A simulated engine: real vectors without a model, at a stated speed and with stated faults."""

from __future__ import annotations

import hashlib
import math
import os
import struct
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bulkembed.embedding.embedder import TokenIds, Vectors, ignore_vector
from bulkembed.errors import EngineError

START_POSITIONS = 1 << 16  # in each of two rows of random numbers; a vector sums two slices, so there are 2^32 vectors
MIN_SLEEP_SECONDS = 0.05  # a shorter sleep costs more than it lasts


@dataclass(frozen=True)
class Faults:
    """What the simulated engine does to a document that holds a stated token. A run sets it with `engine.args`."""

    crash_on: int = -1  # the process ends
    hang_on: int = -1  # the call never returns
    raise_on: int = -1  # the engine raises an error
    nan_on: int = -1  # the vector holds a NaN
    memory_tokens: float = math.inf  # a call with more tokens runs out of memory

    def strike(self, documents: TokenIds, vectors: Vectors) -> None:
        if sum(map(len, documents)) > self.memory_tokens:
            raise EngineError("MemoryError: simulated", "memory")
        for row, ids in enumerate(documents):
            if self.crash_on in ids:
                os._exit(1)
            if self.hang_on in ids:
                time.sleep(1e6)
            if self.raise_on in ids:
                raise EngineError("RuntimeError: simulated", "engine")
            if self.nan_on in ids:
                vectors[row, 0] = np.nan


class SimulatedEmbedder:
    """Returns unit vectors that depend on the document's token ids alone, after tokens / rate seconds of sleep.

    It serves dry runs, tests, and benchmarks of everything but the model."""

    version = "simulated 2"
    on_vector: Callable[[], None] = staticmethod(ignore_vector)

    def __init__(self, width: int, tokens_per_second: float, faults: Faults | None = None) -> None:
        self._width = width
        self._seconds_per_token = 1 / tokens_per_second
        # Drawing new numbers for every document took a tenth of a core that feeds a fast device.
        self._random_rows = np.random.Generator(np.random.Philox(0)).standard_normal((2, START_POSITIONS + width), dtype=np.float32)
        self._faults = faults
        self._device = ThreadPoolExecutor(1, thread_name_prefix="simulated-device")

    def embed(self, documents: TokenIds) -> Vectors:
        # There is one device: calls from several threads queue, as they do for a real one.
        return self._device.submit(self._embed, documents).result()

    def _embed(self, documents: TokenIds) -> Vectors:
        started = time.monotonic()
        vectors = np.empty((len(documents), self._width), np.float32)
        rows = self._random_rows
        for row, ids in enumerate(documents):
            first, second = struct.unpack("<HH", hashlib.blake2b(ids.tobytes(), digest_size=4).digest())
            np.add(rows[0, first : first + self._width], rows[1, second : second + self._width], out=vectors[row])
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        if self._faults is not None:
            self._faults.strike(documents, vectors)
        self._wait(documents, started)
        return vectors

    def _wait(self, documents: TokenIds, started: float) -> None:
        """Sleeps until the device has finished every document. The documents finish one after the other, as in a real engine."""
        due = started
        for ids in documents:
            due += len(ids) * self._seconds_per_token
            ahead = due - time.monotonic()
            if ahead > MIN_SLEEP_SECONDS:
                time.sleep(ahead)
            self.on_vector()
        time.sleep(max(0.0, due - time.monotonic()))

    def token_states(self, document: npt.NDArray[np.int32]) -> Vectors:
        """The document's vector for every token: any pooling of them gives that vector."""
        return np.repeat(self.embed([document]), len(document), axis=0)
