"""The terminal: results go to `out` (standard output), errors to `err`."""

import io
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer
from rich.console import Console

from bulkembed import stopping
from bulkembed.config.credentials import hidden_texts
from bulkembed.errors import OutputError

# Control characters but for LF and tabs, other line breaks, characters that turn the direction of text, and lone surrogates.
SPOILS_TERMINALS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def escape_controls(text: str) -> str:
    """The text with its terminal sequences escaped: documents and names of objects may hold some."""
    return SPOILS_TERMINALS.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class Terminal(Console):
    """A console on which no text can move the cursor, change colours, or turn its direction."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        if self._width == 0:  # COLUMNS=0 means that nobody knows the width. rich would print nothing at all
            self.width = shutil.get_terminal_size().columns

    def print(self, *objects: Any, **options: Any) -> None:
        super().print(*(escape_controls(item) if isinstance(item, str) else item for item in objects), **options)

    def drop(self) -> None:
        """Points the stream at /dev/null: writing the rest of its buffer would fail again when the process ends."""
        self.quiet = True
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, self.file.fileno())
        os.close(null)


class Errors(Terminal):
    """Standard error. If it cannot be written, nobody can be told, and the exit code stays what it is."""

    def print(self, *objects: Any, **options: Any) -> None:
        try:
            super().print(*objects, **options)
        except OSError:
            self.drop()

    def on_broken_pipe(self) -> None:
        """rich calls this when the reader is gone. Its own version ends the process silently."""
        self.drop()


class Output(Terminal):
    """Standard output. If it cannot be written, the command ends with one line. rich would end it silently when the reader is gone."""

    def print(self, *objects: Any, **options: Any) -> None:
        with self.written():
            super().print(*objects, **options)

    @contextmanager
    def written(self) -> Iterator[None]:
        """Raises OutputError where standard output cannot be written within the context, by whatever function."""
        try:
            yield
        except OSError as error:
            self.drop()
            if not stopping.stop.signal:  # a terminal that is closed sends a signal, too; what is under way is still published
                raise OutputError(f"standard output cannot be written: {error.strerror}") from error

    def on_broken_pipe(self) -> None:
        """rich calls this when the reader is gone. Its own version ends the process silently."""
        self.drop()
        raise OutputError("standard output cannot be written: nobody reads it any more")


# Emoji are off, because a path may contain `:dog:`.
out = Output(highlight=False, soft_wrap=True, emoji=False)
err = Errors(stderr=True, highlight=False, soft_wrap=True, emoji=False)


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


def replace_unprintable() -> None:
    """Prints characters that the terminal's encoding lacks as `?` from now on, so that no text can end a command."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


class HidingFormatter(logging.Formatter):
    """Formats log lines and tracebacks. It hides secrets in them, and escapes terminal sequences."""

    def format(self, record: logging.LogRecord) -> str:
        return escape_controls(hidden_texts.hide(super().format(record)))
