"""The command line: bulkembed plan | run | retry-rejects | status | verify | files | search | tune | check.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging
import os
import sys
import traceback
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bulkembed import __version__, stopping
from bulkembed.cli import dataset_commands, model_commands, run_commands
from bulkembed.cli.console import Discreet, HelpOnOutput, err, out, tolerate
from bulkembed.config.credentials import hidden_texts
from bulkembed.config.settings import setting_texts
from bulkembed.errors import BulkembedError, InterruptedRun


class Commands(HelpOnOutput, TyperGroup):
    """All commands."""


app = typer.Typer(
    cls=Commands,
    help="Turn a corpus in object storage into a dataset of embedding vectors in object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes the brackets of [default: ...] for markup, and shows nothing
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (run_commands, dataset_commands, model_commands):
    app.add_typer(commands.app)

log = logging.getLogger(__name__)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """Entry point: every error a user can cause is one line on stderr, and an exit code."""
    level = os.environ.get("BULKEMBED_LOG", "warning").upper()
    shown = logging.StreamHandler()
    shown.setFormatter(Discreet("%(message)s"))
    logging.basicConfig(level=level if level in logging.getLevelNamesMapping() else "WARNING", handlers=[shown])
    hidden_texts.add(list(setting_texts(sys.argv[1:] if arguments is None else arguments)))
    tolerate()
    try:
        code = app(arguments, standalone_mode=False)
    except (BulkembedError, InterruptedRun) as error:
        code = said(error)
    except typer.Exit as leaving:
        code = leaving.exit_code
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):  # a mistake on the command line
            code = shown_mistake(error)
        elif stopping.stop.signal:  # Ray's processes may have had the same signal, and be gone
            log.debug("", exc_info=error)
            code = said(InterruptedRun(stopping.stop.signal))
        else:
            err.print(hidden_texts.hide(traceback.format_exc()), markup=False)
            code = 1
    sys.exit(code if isinstance(code, int) else 0)


def shown_mistake(error: Any) -> int:
    """Prints an error of click's; its exit code."""
    error.message = hidden_texts.hide(error.message)
    error.show()
    return 2


def said(error: BulkembedError | InterruptedRun) -> int:
    """Prints the one line of an error; its exit code."""
    log.debug("", exc_info=error)
    if not isinstance(error, InterruptedRun) or stopping.stop.last_word.acquire(blocking=False):
        err.print(f"bulkembed: {hidden_texts.hide(str(error))}", markup=False)
    return error.exit_code
