"""The command line of `scripts/bench`: a command for each row."""

from __future__ import annotations

import functools
import inspect
import json
import signal
from collections.abc import Callable, Iterator
from typing import Annotated, Any, get_type_hints

import typer

from scripts.benchmarks.ablations import ablations
from scripts.benchmarks.devices import devices
from scripts.benchmarks.difference import difference
from scripts.benchmarks.formats import formats
from scripts.benchmarks.host import host
from scripts.benchmarks.limit import limit
from scripts.benchmarks.machine import machine
from scripts.benchmarks.material import Row
from scripts.benchmarks.memory import memory
from scripts.benchmarks.month import month
from scripts.benchmarks.nightly import nightly
from scripts.benchmarks.overhead import overhead
from scripts.benchmarks.peers import peers
from scripts.benchmarks.ratio import ratio
from scripts.benchmarks.reads import reads
from scripts.benchmarks.recall import recall
from scripts.benchmarks.rewrite import rewrite
from scripts.benchmarks.scale import scale
from scripts.benchmarks.start import start
from scripts.benchmarks.still import still
from scripts.benchmarks.tail import tail
from scripts.benchmarks.tune import tune

ROWS = [machine, ratio, peers, limit, overhead, host, devices, tail, scale, memory, start, reads, formats, recall, tune, ablations]
ROWS += [rewrite, nightly, still, month, difference]

Json = Annotated[bool, typer.Option("--json", help="Print one JSON object a line.")]

app = typer.Typer(
    help="Benchmarks. Each row is a command. Trust the ratios: other figures depend on the host and the hour.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # it takes "[default: ...]" for markup, and swallows it
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
)


def command_for(row: Callable[..., Iterator[Row]]) -> Callable[..., None]:
    """A command with the parameters of `row`, which prints each result as soon as it is measured."""

    @functools.wraps(row)
    def command(as_json: bool, **options: Any) -> None:
        for result in row(**options):
            print(json.dumps(result) if as_json else table_line(result), flush=True)

    hints = get_type_hints(row, include_extras=True) | {"return": None}
    parameters = [parameter.replace(annotation=hints[name]) for name, parameter in inspect.signature(row).parameters.items()]
    flag = inspect.Parameter("as_json", inspect.Parameter.POSITIONAL_OR_KEYWORD, default=False, annotation=Json)
    command.__signature__ = inspect.Signature([*parameters, flag])  # type: ignore[attr-defined]
    command.__annotations__ = hints | {"as_json": Json}
    return command


def table_line(result: Row) -> str:
    return "  ".join(f"{name} {value:,}" if type(value) is int else f"{name} {value}" for name, value in result.items())


for row in ROWS:
    app.command(name=row.__name__)(command_for(row))


def main() -> None:
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the processes of a row end with it
    app(prog_name="scripts/bench")


if __name__ == "__main__":
    main()
