"""A run in a process of its own that kills itself: `python -m tests.support.killed_night CONFIG_JSON WRITES`, after that many writes."""

from __future__ import annotations

import os
import signal
import sys

import pytest

from bulkembed.config.run_config import RunConfig
from tests.support import nights
from tests.support.runs import in_one_process


def main(config: str, writes: int) -> None:
    with pytest.MonkeyPatch.context() as patched:
        nights.WritesUntilKilled(patched, writes, lambda: os.kill(os.getpid(), signal.SIGKILL))
        in_one_process(RunConfig.model_validate_json(config))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
