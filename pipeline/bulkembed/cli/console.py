"""The terminal: what is asked for goes to `out`, what went wrong to `err`."""

import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from bulkembed.config.credentials import hidden_texts
from bulkembed.errors import OutputError


class Output(Console):
    """Standard output. Where it cannot be written, a command ends with one line: rich says nothing of a reader that is gone."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.written():
            super().print(*objects, **options)

    @contextmanager
    def written(self) -> Iterator[None]:
        """For what is written to it by other means, too."""
        try:
            yield
        except OSError as error:
            self.drop()
            raise OutputError(f"standard output cannot be written: {error.strerror}") from error

    def on_broken_pipe(self) -> None:
        """What rich calls as the reader is gone. Its own ends the process without a word."""
        self.drop()
        raise OutputError("standard output cannot be written: nobody reads it any more")

    def drop(self) -> None:
        """What is in the buffer yet would fail again as the process ends."""
        self.quiet = True
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


# Without emoji: `:dog:` may be a part of a path.
out = Output(highlight=False, soft_wrap=True, emoji=False)
err = Console(stderr=True, highlight=False, soft_wrap=True, emoji=False)


class HelpOnOutput:
    """Mixin of commands: their help goes to `out`, so that it ends with one line where standard output cannot be written."""

    def get_help_option(self, ctx: Any) -> Any:
        option = super().get_help_option(ctx)  # type: ignore[misc]
        option.callback = show_help
        return option


def show_help(ctx: Any, _option: Any, is_given: bool) -> None:
    if is_given and not ctx.resilient_parsing:
        with out.written():
            typer.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def tolerate() -> None:
    """From now on, letters that the terminal's encoding lacks are printed as `?`: what is printed must not end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class Discreet(logging.Formatter):
    """Lines of the log, tracebacks too, without what must not be shown."""

    def format(self, record: logging.LogRecord) -> str:
        return hidden_texts.hide(super().format(record))
