"""The request to stop a run. Signals set it (see `cli.signals`), and code checks it between two pieces of work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bulkembed.errors import InterruptedRun


class Stop:
    """A request to stop, and the time that work under way may still take."""

    def __init__(self) -> None:
        self.signal = 0  # 0: no signal has come
        self.since = 0.0
        self.grace_seconds = 0.0
        self.last_word = threading.Lock()  # its holder prints that the process was interrupted, and nobody else does
        self.last_line: Callable[[int], bytes] | None = None  # what a command that a signal ends owes to standard output

    @property
    def deadline(self) -> float:
        return self.since + self.grace_seconds

    def request(self, number: int) -> None:
        self.since = time.monotonic()
        self.signal = number

    def check(self) -> None:
        """Raises InterruptedRun once a signal has come. Call it where no work is under way that is worth keeping."""
        if self.signal:
            raise InterruptedRun(self.signal)


stop = Stop()  # there is one for the process
