"""The command line: bulkembed plan | run | reindex | retry-rejects | status | verify | files | changes | search | snapshots |
publish | rollback | gc | forget | tune | check.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import logging
import os
import stat
import sys
import traceback
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from bulkembed import __version__, stopping
from bulkembed.cli import dataset_commands, model_commands, run_commands, snapshot_commands, upkeep_commands
from bulkembed.cli.console import HelpOnOutput, HidingFormatter, err, out, replace_unprintable
from bulkembed.cli.last_line import Call
from bulkembed.config.credentials import hidden_texts
from bulkembed.config.error_lines import KEYS
from bulkembed.config.settings import setting_texts
from bulkembed.errors import BulkembedError, InterruptedRun, OutputError, host_error, in_one_line


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


def main(arguments: list[str] | None = None, defaults: Mapping[str, Any] | None = None) -> None:
    """The entry point. Every error that a user can cause ends as one line on standard error and an exit code.

    `defaults`: keys of a run, over which files and options lie."""
    forbid_writes_of_others()
    level = os.environ.get("BULKEMBED_LOG", "warning").upper()
    handler = logging.StreamHandler()
    handler.setFormatter(HidingFormatter("%(message)s"))
    logging.basicConfig(level=level if level in logging.getLevelNamesMapping() else "WARNING", handlers=[handler])
    words = sys.argv[1:] if arguments is None else arguments
    hidden_texts.add(
        [text for text in setting_texts(words) if text not in KEYS]
    )  # the name of a key is no secret, and an example may hold it
    replace_unprintable()
    call = Call(words, defaults)
    with call.others_on_stderr():
        code, error = outcome(words, call)
    try:
        code = call.print_line(code, error)
    except OutputError as unprinted:
        code = print_error(unprinted)
    sys.exit(code)


def forbid_writes_of_others() -> None:
    """Nothing that this process and its Ray create can be written by other users, however permissive the umask is."""
    os.umask(os.umask(0o077) | stat.S_IWOTH)


def outcome(words: Sequence[str], call: Call) -> tuple[int, str | None]:
    """Does what the words say: the exit code, and the one line of the error, which is printed already."""
    try:
        code = app(list(words), standalone_mode=False, prog_name="bulkembed", obj=call)
    except (BulkembedError, InterruptedRun) as error:
        return print_error(error), text_of(error)
    except typer.Exit as leaving:
        code = leaving.exit_code
    except Exception as error:
        if type(error).__module__.startswith(("click", "typer")):  # a mistake on the command line
            return print_mistake(error)
        if stopping.stop.signal:  # the same signal may have ended Ray's processes
            log.debug("", exc_info=error)
            interrupted = InterruptedRun(stopping.stop.signal)
            return print_error(interrupted), text_of(interrupted)
        if lacking := host_error(error):
            log.debug("", exc_info=error)
            return print_error(lacking), text_of(lacking)
        err.print(hidden_texts.hide(traceback.format_exc()), markup=False)
        return 1, text_of(error)
    return code if isinstance(code, int) else 0, None


def text_of(error: BaseException) -> str:
    return in_one_line(hidden_texts.hide(str(error)))


def print_mistake(error: Any) -> tuple[int, str]:
    """Prints a mistake on the command line as one line, with the command whose help says more. Returns the exit code and the line."""
    if type(error).__name__ == "NoArgsIsHelpError":  # no command at all: its message is the help
        error.show()
        return 2, ""
    message = hidden_texts.hide(error.format_message()).rstrip(".")
    command = error.ctx.command_path if getattr(error, "ctx", None) else "bulkembed"
    line = in_one_line(f"{message} (see {command} --help)")
    print_line(line)
    return 2, line


def print_error(error: BulkembedError | InterruptedRun) -> int:
    """Prints the one line of an error, and returns its exit code."""
    log.debug("", exc_info=error)
    if not isinstance(error, InterruptedRun) or stopping.stop.last_word.acquire(blocking=False):
        print_line(text_of(error))
    return error.exit_code


def print_line(message: str) -> None:
    err.print(f"bulkembed: {message}", markup=False)
