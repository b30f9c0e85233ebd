"""The command line: bulkembed plan | run | retry-rejects | status | verify | files | changes | search | snapshots | publish |
rollback | gc | forget | tune | check.

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
from bulkembed.cli import dataset_commands, model_commands, run_commands, snapshot_commands, upkeep_commands
from bulkembed.cli.console import HelpOnOutput, HidingFormatter, err, out, replace_unprintable
from bulkembed.config.credentials import hidden_texts
from bulkembed.config.error_lines import KEYS
from bulkembed.config.settings import setting_texts
from bulkembed.errors import BulkembedError, InterruptedRun, in_one_line


class Commands(HelpOnOutput, TyperGroup):
    """All commands."""


app = typer.Typer(
    cls=Commands,
    help="Turn a corpus in object storage into a dataset of embedding vectors in object storage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # rich would take the brackets of [default: ...] for markup, and hide them
    context_settings={"help_option_names": ["-h", "--help"]},
)
for commands in (run_commands, dataset_commands, snapshot_commands, upkeep_commands, model_commands):
    app.add_typer(commands.app)

log = logging.getLogger(__name__)


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if show:
        out.print(__version__)
        raise typer.Exit


def main(arguments: list[str] | None = None) -> None:
    """The entry point. Every error that a user can cause ends as one line on standard error and an exit code."""
    level = os.environ.get("BULKEMBED_LOG", "warning").upper()
    handler = logging.StreamHandler()
    handler.setFormatter(HidingFormatter("%(message)s"))
    logging.basicConfig(level=level if level in logging.getLevelNamesMapping() else "WARNING", handlers=[handler])
    texts = setting_texts(sys.argv[1:] if arguments is None else arguments)
    hidden_texts.add([text for text in texts if text not in KEYS])  # the name of a key is no secret, and an example may hold it
    replace_unprintable()
    try:
        code = app(arguments, standalone_mode=False, prog_name="bulkembed")
    except (BulkembedError, InterruptedRun) as error:
        code = print_error(error)
    except typer.Exit as leaving:
        code = leaving.exit_code
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):  # a mistake on the command line
            code = print_mistake(error)
        elif stopping.stop.signal:  # the same signal may have ended Ray's processes
            log.debug("", exc_info=error)
            code = print_error(InterruptedRun(stopping.stop.signal))
        else:
            err.print(hidden_texts.hide(traceback.format_exc()), markup=False)
            code = 1
    sys.exit(code if isinstance(code, int) else 0)


def print_mistake(error: Any) -> int:
    """Prints a mistake on the command line as one line, with the command whose help says more, and returns the exit code."""
    if type(error).__name__ == "NoArgsIsHelpError":  # no command at all: its message is the help
        error.show()
        return 2
    message = hidden_texts.hide(error.format_message()).rstrip(".")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "bulkembed"
    print_line(f"{message} (see {command} --help)")
    return 2


def print_error(error: BulkembedError | InterruptedRun) -> int:
    """Prints the one line of an error, and returns its exit code."""
    log.debug("", exc_info=error)
    if not isinstance(error, InterruptedRun) or stopping.stop.last_word.acquire(blocking=False):
        print_line(hidden_texts.hide(str(error)))
    return error.exit_code


def print_line(message: str) -> None:
    err.print(f"bulkembed: {in_one_line(message)}", markup=False)
