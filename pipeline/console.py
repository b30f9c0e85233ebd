"""The terminal: what is asked for goes to `out`, what went wrong to `err`."""

from rich.console import Console

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)
