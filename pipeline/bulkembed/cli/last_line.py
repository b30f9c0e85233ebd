"""The line of JSON that `--json` asks for: the last on standard output, once, however a run ends. All else goes to standard error."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from typing import Any

import typer

from bulkembed import stopping
from bulkembed.cli.console import out
from bulkembed.errors import InterruptedRun
from bulkembed.report.run_json import Seen, run_line, text_of

COMMANDS = {"run", "reindex"}  # have the option
HELP = {"-h", "--help"}


class Call:
    """One call of the command line: what it has beside its words, and what it leaves for its last line."""

    def __init__(self, words: Sequence[str] = (), defaults: Mapping[str, Any] | None = None) -> None:
        self.defaults = defaults or {}  # keys of a run; files and options lie over them
        self.seen = Seen()
        # The words decide, not the parsed option: a mistake among the other words ends with a line too.
        self.wants_json = "--json" in words and words[0] in COMMANDS and not HELP & set(words)
        self.unprinted = threading.Lock()  # its holder prints the line, and nobody else does

    @classmethod
    def of(cls, context: typer.Context) -> Call:
        return context.obj if isinstance(context.obj, Call) else cls()

    @contextmanager
    def others_on_stderr(self) -> Iterator[None]:
        """Within the context, what this process would print on standard output goes to standard error."""
        if not self.wants_json:
            yield
            return
        stopping.stop.last_line = self.last_line
        try:
            with redirect_stdout(sys.stderr):
                yield
        finally:
            stopping.stop.last_line = None

    def last_line(self, signal_number: int) -> bytes:
        """The line of a run that is ended by a signal wherever it is; empty where it is printed already."""
        error = InterruptedRun(signal_number)
        return text_of(run_line(self.seen, error.exit_code, str(error))).encode() if self.unprinted.acquire(blocking=False) else b""

    def print_line(self, exit_code: int, error: str | None) -> int:
        """Prints the line, and returns the exit code of the process. Raises OutputError where it cannot be printed."""
        if self.wants_json and self.unprinted.acquire(blocking=False):
            with out.written():
                typer.echo(text_of(run_line(self.seen, exit_code, error)), nl=False)
        return exit_code
