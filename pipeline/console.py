"""The terminal: what is asked for goes to `out`, what went wrong to `err`."""

import io
import sys

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)


def tolerate() -> None:
    """From now on, letters that the terminal's encoding lacks are printed as `?`: what is printed must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
