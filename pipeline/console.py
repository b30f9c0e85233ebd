"""The terminal: what is asked for goes to `out`, what went wrong to `err`."""

import io
import logging
import sys

from rich.console import Console

from pipeline.credentials import concealed

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def tolerate() -> None:
    """From now on, letters that the terminal's encoding lacks are printed as `?`: what is printed must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Discreet(logging.Formatter):
    """Lines of the log, tracebacks too, without what must not be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return concealed.hide(super().format(record))
