"""The wish to stop, which ordinary code looks at between two pieces of work. Signals set it, see `cli.signals`."""

from __future__ import annotations

import threading
import time

from bulkembed.errors import InterruptedRun


class Stop:
    """The wish to stop, and how long what is under way may take."""

    def __init__(self) -> None:
        self.signal = 0  # 0: nobody wishes it
        self.since = 0.0
        self.grace_seconds = 0.0
        self.last_word = threading.Lock()  # who takes it says that the process was interrupted

    @property
    def deadline(self) -> float:
        return self.since + self.grace_seconds

    def request(self, number: int) -> None:
        self.since = time.monotonic()
        self.signal = number

    def check(self) -> None:
        """To be called where nothing is under way that is worth keeping. Raises InterruptedRun once a signal has come."""
        if self.signal:
            raise InterruptedRun(self.signal)


stop = Stop()  # of this process
